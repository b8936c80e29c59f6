package client

import "fmt"

const (
	// PageSize is how many entries one answer holds.
	PageSize = 500
	// MaxPages bounds a listing, so that a server that repeats its token does not keep us for ever.
	MaxPages = 2000
)

// EachPage reads a list page by page: page takes the token of one and returns that of the next.
func EachPage(what string, page func(token string) (next string, err error)) error {
	token := ""
	for range MaxPages {
		next, err := page(token)
		if err != nil || next == "" {
			return err
		}
		token = next
	}
	return fmt.Errorf("list %s: more than %d pages", what, MaxPages)
}
