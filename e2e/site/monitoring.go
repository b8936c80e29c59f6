package site

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// prometheusConfig scrapes the production VM every second and calls it lost after two seconds without an answer.
const prometheusConfig = `global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}
rule_files: [%[1]s]
scrape_configs:
- job_name: production
  static_configs: [{targets: ["%[2]s:80"]}]
alerting:
  alertmanagers:
  - static_configs: [{targets: ["%[3]s:9093"]}]
`

const prometheusRules = `groups:
- name: site
  rules:
  - alert: SiteDown
    expr: up{job="production"} == 0
    for: 2s
    labels: {site: east}
    annotations: {summary: "the production VM does not answer"}
`

// alertmanagerConfig calls the trigger's webhook over TLS with its bearer token.
const alertmanagerConfig = `route: {receiver: hotspare, group_by: [alertname], group_wait: 1s, group_interval: 5s, repeat_interval: 1h}
receivers:
- name: hotspare
  webhook_configs:
  - url: https://%[1]s:7444/v1/triggers/east-down:alertmanager
    http_config:
      authorization: {type: Bearer, credentials_file: %[2]s}
      tls_config: {ca_file: %[3]s}
`

// StartMonitoring starts Prometheus and Alertmanager. Alertmanager calls the third coordinator, whoever leads.
func (s *Site) StartMonitoring(ctx context.Context) error {
	dir := filepath.Join(s.Mon.Dir, servicesDir)
	ca, err := os.ReadFile(s.pki("ca.crt"))
	if err != nil {
		return err
	}
	rules, token, authority := filepath.Join(dir, "rules.yml"), filepath.Join(dir, "token"), filepath.Join(dir, "ca.crt")
	for path, text := range map[string]string{rules: prometheusRules, token: Token, authority: string(ca)} {
		if err := writeFile(path, text, 0o600); err != nil {
			return err
		}
	}
	if _, err := s.Lab.StartAlertmanager(ctx, s.Mon, fmt.Sprintf(alertmanagerConfig, s.Coordinators[2].MgmtAddr, token, authority)); err != nil {
		return err
	}
	_, err = s.Lab.StartPrometheus(ctx, s.Mon, fmt.Sprintf(prometheusConfig, rules, ProductionAddress, s.Mon.MgmtAddr))
	return err
}
