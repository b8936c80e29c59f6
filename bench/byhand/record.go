package byhand

import (
	"fmt"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netns"
)

// updateLimit bounds one update; a millisecond is usual.
const updateLimit = 5 * time.Second

// Record is an address record and who serves it.
type Record struct {
	// Namespace is the path of the network namespace that the update is sent from.
	Namespace string
	// Server is host:port.
	Server    string
	Zone      string
	Name      string
	Old, New  string
	TTL       int
	Key       string
	KeySecret string
}

// change replaces one address by another, on the condition that it is there.
func (r Record) change(from, to string) error {
	have, err := dns.NewRR(fmt.Sprintf("%s 0 IN A %s", r.Name, from))
	if err != nil {
		return err
	}
	want, err := dns.NewRR(fmt.Sprintf("%s %d IN A %s", r.Name, r.TTL, to))
	if err != nil {
		return err
	}
	m := new(dns.Msg)
	m.SetUpdate(r.Zone)
	m.Used([]dns.RR{have})
	m.RemoveRRset([]dns.RR{have})
	m.Insert([]dns.RR{want})
	m.SetTsig(r.Key, dns.HmacSHA256, 300, time.Now().Unix())
	answer, err := r.exchange(m)
	if err != nil {
		return err
	}
	if answer.Rcode != dns.RcodeSuccess {
		return fmt.Errorf("the name server answers %s", dns.RcodeToString[answer.Rcode])
	}
	return nil
}

// undo puts the old address back, if the new one is there.
func (r Record) undo() error {
	m := new(dns.Msg)
	m.SetQuestion(r.Name, dns.TypeA)
	answer, err := r.exchange(m)
	if err != nil {
		return err
	}
	for _, rr := range answer.Answer {
		if a, ok := rr.(*dns.A); ok && a.A.String() == r.New {
			return r.change(r.New, r.Old)
		}
	}
	return nil
}

func (r Record) exchange(m *dns.Msg) (answer *dns.Msg, err error) {
	ns, err := netns.GetFromPath(r.Namespace)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	err = within(ns, func() error {
		client := &dns.Client{Net: "tcp", Timeout: updateLimit, TsigSecret: map[string]string{r.Key: r.KeySecret}}
		answer, _, err = client.Exchange(m, r.Server)
		return err
	})
	return answer, err
}
