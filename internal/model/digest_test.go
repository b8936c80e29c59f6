package model

import (
	"bytes"
	"testing"
)

func TestOrdersDigest(t *testing.T) {
	a := OrderKey{Object: "instance/a", Era: 1, Generation: 7}
	b := OrderKey{Object: "volume/b", Era: 1, Generation: 3}
	both := OrdersDigest([]OrderKey{a, b})
	if !bytes.Equal(both, OrdersDigest([]OrderKey{b, a})) {
		t.Error("the order of the keys changes the digest")
	}
	newer, older := a, a
	newer.Generation, older.Era = 8, 0
	for name, keys := range map[string][]OrderKey{
		"none": nil, "one": {a}, "newer": {newer, b}, "older era": {older, b},
		"renamed": {{Object: "instance/c", Era: 1, Generation: 7}, b},
	} {
		if bytes.Equal(both, OrdersDigest(keys)) {
			t.Errorf("%s: the digest does not differ", name)
		}
	}
	if newer.Compare(a) <= 0 || older.Compare(newer) >= 0 || a.Compare(a) != 0 {
		t.Error("orders are not compared by era, then generation")
	}
}
