package proof

import "github.com/hotspare/hotspare/internal/placement/guarantee"

// GoOn is what Renew does when a search from the beginning has found nothing at all.
func GoOn(e Earlier, is *guarantee.Site) guarantee.Decision {
	return goOn(e, is, guarantee.Decision{Answer: guarantee.NotProven, Asked: guarantee.Tolerance(is.Asked()), Proven: -1})
}

// TakenOver is how many steps are spent on earlier placements with a bound.
func TakenOver(e Earlier, is *guarantee.Site, limit int) int {
	from := newEarlier(e.Site, e.Decision.Certificate, is)
	from.limit = limit
	p := &prover{ix: newIndex(is, is.Asked()), scenarios: is.Asked(), earlier: from}
	p.search()
	return from.steps
}
