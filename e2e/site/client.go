package site

import (
	"time"

	"github.com/hotspare/hotspare/e2e/lab"
	"github.com/hotspare/hotspare/internal/cli/client"
)

// clientLimit bounds one call with all its repeats: an election in between costs a second.
const clientLimit = 30 * time.Second

// Connect returns a connection to the coordinators' own sockets, as root uses them on their machines: it costs no process and no
// TLS, so that asking disturbs a measurement little. It turns to whichever of the hosts answers.
func (s *Site) Connect(coordinators ...*lab.Host) (*client.Client, error) {
	var t client.Target
	for _, c := range coordinators {
		t.Endpoints = append(t.Endpoints, "unix:"+s.socket(c))
	}
	return client.New(t, client.Options{Timeout: clientLimit})
}

// UpdateKey is the TSIG key that may update the zone of the DNS name.
func (s *Site) UpdateKey() (name, secret string) { return keyName + ".", keySecret }
