package cli

import "fmt"

// eachPage reads a list page by page: page takes the token of one and returns that of the next.
func eachPage(what string, page func(token string) (next string, err error)) error {
	token := ""
	for range maxPages {
		next, err := page(token)
		if err != nil || next == "" {
			return err
		}
		token = next
	}
	return fmt.Errorf("list %s: more than %d pages", what, maxPages)
}
