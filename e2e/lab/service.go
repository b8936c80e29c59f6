package lab

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// serviceWait bounds the start of a service; 0.05 to 0.3 s were seen.
const serviceWait = 30 * time.Second

// servicesDir is the part of a host's directory that holds the services' own files; the inventory leaves it out.
const servicesDir = "services"

// Service is a real program that answers on a node's management address.
type Service struct {
	*Process
	// Addr is host:port on the management network.
	Addr string
}

// KnotOptions describe a name server for one zone.
type KnotOptions struct {
	// Zone without the last dot, for example corp.example.
	Zone string
	// Records are lines of a zone file, names relative to the zone; SOA and NS come by themselves.
	Records []string
	// KeyName and KeySecret (base64) are the TSIG key, hmac-sha256, that may update the zone. Anybody may transfer it.
	KeyName, KeySecret string
}

// zone is a zone that the inventory looks at.
type zone struct {
	host       *Host
	addr, name string
}

// StartKnot starts Knot DNS on port 53 of the node's management address and waits until it serves the zone. Once per node.
func (l *Lab) StartKnot(ctx context.Context, h *Host, o KnotOptions) (*Service, error) {
	zoneText := fmt.Sprintf("$ORIGIN %s.\n$TTL 30\n@ SOA ns hostmaster 1 3600 600 86400 30\n@ NS ns\nns A %s\n%s\n",
		o.Zone, h.MgmtAddr, strings.Join(o.Records, "\n"))
	zonePath, err := h.writeConfig("knot", "zone", zoneText)
	if err != nil {
		return nil, err
	}
	config := fmt.Sprintf(`server:
    rundir: %[1]s
    listen: %[2]s@53
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: %[1]s
log:
  - target: stderr
    any: info
key:
  - id: %[3]s
    algorithm: hmac-sha256
    secret: %[4]s
acl:
  - id: update
    key: %[3]s
    action: [update, transfer]
  - id: transfer
    action: transfer
zone:
  - domain: %[5]s
    storage: %[1]s
    file: zone
    acl: [update, transfer]
`, filepath.Dir(zonePath), h.MgmtAddr, o.KeyName, o.KeySecret, o.Zone)
	path, err := h.writeConfig("knot", "knot.conf", config)
	if err != nil {
		return nil, err
	}
	s, err := h.startService(ctx, "knot", 53, func(ctx context.Context, _ string) error {
		_, err := h.Run(ctx, "kdig", "+noall", "+answer", "@"+h.MgmtAddr, o.Zone, "AXFR")
		return err
	}, "knotd", "-c", path)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.zones = append(l.zones, zone{h, h.MgmtAddr, o.Zone})
	return s, nil
}

// StartPrometheus starts Prometheus on port 9090 with the text of its configuration file. Other files that the text names
// go into h.Dir before.
func (l *Lab) StartPrometheus(ctx context.Context, h *Host, config string) (*Service, error) {
	path, err := h.writeConfig("prometheus", "prometheus.yml", config)
	if err != nil {
		return nil, err
	}
	return h.startService(ctx, "prometheus", 9090, httpReady(l.HTTPClient(h), "/-/ready"),
		"prometheus", "--config.file="+path, "--storage.tsdb.path="+filepath.Join(filepath.Dir(path), "data"),
		"--web.listen-address="+h.MgmtAddr+":9090")
}

// StartAlertmanager starts Alertmanager on port 9093 with the text of its configuration file.
func (l *Lab) StartAlertmanager(ctx context.Context, h *Host, config string) (*Service, error) {
	path, err := h.writeConfig("alertmanager", "alertmanager.yml", config)
	if err != nil {
		return nil, err
	}
	return h.startService(ctx, "alertmanager", 9093, httpReady(l.HTTPClient(h), "/-/ready"),
		"prometheus-alertmanager", "--config.file="+path, "--storage.path="+filepath.Join(filepath.Dir(path), "data"),
		"--web.listen-address="+h.MgmtAddr+":9093", "--cluster.listen-address=")
}

// writeConfig writes a file of a service, below the host's directory for what belongs to the lab and not to the product.
func (h *Host) writeConfig(service, name, text string) (string, error) {
	dir := filepath.Join(h.Dir, servicesDir, service)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("configure %s on %s: %w", service, h.Name, err)
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return "", fmt.Errorf("configure %s on %s: %w", service, h.Name, err)
	}
	return path, nil
}

// startService starts a program and waits until it answers at the address.
func (h *Host) startService(ctx context.Context, label string, port int, answers func(ctx context.Context, addr string) error,
	name string, args ...string,
) (*Service, error) {
	ctx, cancel := context.WithTimeout(ctx, serviceWait)
	defer cancel()
	addr := net.JoinHostPort(h.MgmtAddr, strconv.Itoa(port))
	// Else an older service at the address would pass for the new one.
	if conn, err := h.DialContext(ctx, "tcp", addr); err == nil {
		conn.Close()
		return nil, fmt.Errorf("start %s on %s: somebody answers at %s already", label, h.Name, addr)
	}
	p, err := h.Start(label, h.Command(context.Background(), name, args...))
	if err != nil {
		return nil, err
	}
	if err := p.ready(ctx, func(ctx context.Context) error { return answers(ctx, addr) }); err != nil {
		return nil, fmt.Errorf("start %s on %s: %w", label, h.Name, err)
	}
	return &Service{Process: p, Addr: addr}, nil
}

// httpReady asks for a page until it is answered with 200.
func httpReady(client *http.Client, page string) func(context.Context, string) error {
	return func(ctx context.Context, addr string) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+page, nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", page, resp.Status)
		}
		return nil
	}
}
