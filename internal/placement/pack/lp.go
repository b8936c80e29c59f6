package pack

import "slices"

// pattern is the content of a bin by flavour: a column of the linear program.
type pattern []part

type part struct {
	flavour int32
	count   int32
}

// lp is the relaxation "as few bins as possible": find amounts x >= 0 of patterns, so that each row, a
// flavour, gets at least what is left of it. It is solved by a revised simplex method with an explicit
// inverse. Floats are only advice here: what comes out is rounded to whole bins that are counted in
// integers. Each product is converted before it is added, which keeps compilers from fusing the two, so
// that the advice is the same on every machine too.
type lp struct {
	rows  []int32 // flavour of each row
	rowOf []int32 // by flavour; -1: none
	basis []basic // one for each row
	x     []float64
	y     []float64 // price of each row
	inv   []float64 // inverse of the basis, row by row
	d     []float64
	some  []int // columns of the inverse in which the pivot row is not zero
}

// basic is a column in the basis: a pattern, or the surplus of a row if the pattern is nil.
type basic struct {
	pattern pattern
	row     int
}

// tiny is what counts as zero in the relaxation.
const tiny = 1e-9

// pivotLeast is the least pivot; smaller ones would blow the inverse up.
const pivotLeast = 1e-7

// newLP starts with bins that hold one flavour each, as full as possible.
func newLP(left []int, single func(flavour int32) int) *lp {
	l := &lp{rowOf: make([]int32, len(left))}
	for f, n := range left {
		l.rowOf[f] = none
		if n > 0 {
			l.rowOf[f] = int32(len(l.rows))
			l.rows = append(l.rows, int32(f))
		}
	}
	m := len(l.rows)
	l.basis, l.x, l.y, l.d = make([]basic, m), make([]float64, m), make([]float64, m), make([]float64, m)
	l.inv = make([]float64, m*m)
	for i, f := range l.rows {
		n := min(single(f), left[f])
		l.basis[i] = basic{pattern: pattern{{f, int32(n)}}}
		jitter := float64(uint32(f)*2654435761%1000) / 1e6 // ties would make it stall
		l.x[i] = (float64(left[f]) + jitter) / float64(n)
		l.y[i] = 1 / float64(n)
		l.inv[i*m+i] = 1 / float64(n)
	}
	return l
}

func (l *lp) clone() *lp {
	c := *l
	c.some = nil
	c.rows, c.rowOf, c.basis = slices.Clone(l.rows), slices.Clone(l.rowOf), slices.Clone(l.basis)
	c.x, c.y, c.d, c.inv = slices.Clone(l.x), slices.Clone(l.y), slices.Clone(l.d), slices.Clone(l.inv)
	return &c
}

// value of a pattern at the present prices; one above 1 improves the solution.
func (l *lp) value(p pattern) (v float64) {
	for _, q := range p {
		if row := l.rowOf[q.flavour]; row >= 0 {
			v += float64(l.y[row] * float64(q.count))
		}
	}
	return v
}

// enter brings a pattern into the basis.
func (l *lp) enter(p pattern) bool {
	m := len(l.rows)
	clear(l.d)
	for _, q := range p {
		row := l.rowOf[q.flavour]
		if row < 0 {
			continue
		}
		for i := range m {
			if v := l.inv[i*m+int(row)]; v != 0 {
				l.d[i] += float64(v * float64(q.count))
			}
		}
	}
	return l.pivot(basic{pattern: p}, 1-l.value(p))
}

// relax brings the surplus of a row with a negative price into the basis, if there is one.
func (l *lp) relax() bool {
	m := len(l.rows)
	row := 0
	for i, v := range l.y {
		if v < l.y[row] {
			row = i
		}
	}
	if m == 0 || l.y[row] > -tiny {
		return false
	}
	for i := range m {
		l.d[i] = -l.inv[i*m+row]
	}
	return l.pivot(basic{row: row}, l.y[row])
}

// pivot exchanges the column whose amount reaches zero first for one with the given reduced cost.
func (l *lp) pivot(in basic, cost float64) bool {
	m := len(l.rows)
	out := -1
	for i, d := range l.d {
		if d <= pivotLeast {
			continue
		}
		if out < 0 {
			out = i
			continue
		}
		a, b := l.x[i]/d, l.x[out]/l.d[out]
		if a < b-tiny || a < b+tiny && d > l.d[out] {
			out = i
		}
	}
	if out < 0 {
		return false
	}
	pivotRow := l.inv[out*m : (out+1)*m]
	amount := l.x[out] / l.d[out]
	l.some = l.some[:0]
	for j, v := range pivotRow {
		if v != 0 {
			l.y[j] += float64(cost / l.d[out] * v)
			pivotRow[j] /= l.d[out]
			l.some = append(l.some, j)
		}
	}
	for i, d := range l.d {
		if i == out || d == 0 {
			continue
		}
		l.x[i] = max(0, l.x[i]-float64(d*amount))
		row := l.inv[i*m : (i+1)*m]
		for _, j := range l.some {
			row[j] -= float64(d * pivotRow[j])
		}
	}
	l.x[out], l.basis[out] = amount, in
	return true
}
