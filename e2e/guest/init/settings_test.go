package main

import (
	"testing"
	"time"
)

func TestParseSettings(t *testing.T) {
	s, err := parseSettings("console=ttyS0 hs.name=erp hs.nic=52:54:00:00:00:01,10.20.0.5/24,10.20.0.1 " +
		"hs.nic=52:54:00:00:00:02,10.30.0.5/16 hs.port=8080 hs.records=50ms hs.ignore-shutdown=1\n")
	if err != nil {
		t.Fatal(err)
	}
	if s.name != "erp" || s.port != 8080 || s.recordEvery != 50*time.Millisecond || !s.ignoreShutdown || s.unhealthy {
		t.Errorf("settings %+v", s)
	}
	if len(s.nics) != 2 || s.nics[0].gateway.String() != "10.20.0.1" || s.nics[1].gateway.IsValid() {
		t.Errorf("nics %+v", s.nics)
	}
	for _, bad := range []string{
		"hs.nik=1", "hs.nic=x,10.0.0.1/8", "hs.nic=52:54:00:00:00:01", "hs.port=http",
		"hs.nic=52:54:00:00:00:01,fd00::1/64", "hs.records=fast",
	} {
		if _, err := parseSettings(bad); err == nil {
			t.Errorf("%q accepted", bad)
		}
	}
}
