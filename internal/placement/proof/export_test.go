package proof

import "github.com/hotspare/hotspare/internal/placement/guarantee"

// GoOn is what Renew does when a search from the beginning has found nothing at all.
func GoOn(e Earlier, is *guarantee.Site) guarantee.Decision {
	return goOn(e, is, guarantee.Decision{Answer: guarantee.NotProven, Asked: guarantee.Tolerance(is.Asked()), Proven: -1})
}
