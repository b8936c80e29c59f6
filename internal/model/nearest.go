package model

import "strings"

// Nearest returns the valid word that differs least from a misspelt one, or "" when none is near: more
// than a third of its letters (at least two) would have to change. Letter case does not count.
func Nearest(word string, valid []string) string {
	best, bestDistance := "", max(2, len(word)/3)+1
	for _, v := range valid {
		d := editDistance(strings.ToLower(word), strings.ToLower(v), bestDistance)
		if d < bestDistance && d < len(v) {
			best, bestDistance = v, d
		}
	}
	return best
}

// editDistance counts the inserted, deleted, changed and swapped neighbouring bytes between two words
// (optimal string alignment). It answers with the bound when the lengths differ by that much, so its
// cost follows the shorter, valid word.
func editDistance(a, b string, bound int) int {
	if len(a)-len(b) >= bound || len(b)-len(a) >= bound {
		return bound
	}
	var before []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next := make([]int, len(b)+1)
		next[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			next[j] = min(next[j-1]+1, row[j]+1, row[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}
