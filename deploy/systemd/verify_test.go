// Package systemd checks the shipped units, users and directories with systemd's own tools. It holds no
// code of the product.
package systemd

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// tool finds one of systemd's programs. Without it the test is skipped, in CI it fails.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if os.Getenv("HOTSPARE_CI") == "1" {
		t.Fatalf("%s is missing: apt install systemd", name)
	}
	t.Skipf("%s is missing: apt install systemd", name)
	return ""
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), tool(t, name), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func units() []string { return []string{"hotspare-coordinator.service", "hotspare-agent.service"} }

// TestVerify has systemd read the units. The programs need not be installed: others stand in for them.
func TestVerify(t *testing.T) {
	for _, unit := range units() {
		t.Run(unit, func(t *testing.T) {
			data, err := os.ReadFile(unit)
			if err != nil {
				t.Fatal(err)
			}
			program := "/usr/bin/" + strings.TrimSuffix(unit, ".service")
			text := strings.ReplaceAll(string(data), "ExecStart="+program, "ExecStart=/bin/true")
			if text == string(data) {
				t.Fatalf("does not start %s", program)
			}
			path := filepath.Join(t.TempDir(), unit)
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			// verify ends with 0 for unknown settings and only warns, so its words count too.
			if out := run(t, "systemd-analyze", "verify", "--man=no", path); strings.Contains(out, unit) {
				t.Errorf("systemd says:\n%s", out)
			}
		})
	}
}

// TestSecurity bounds what an intruder could do from within: 2.0 of 10 for the coordinator, which talks to
// everybody. The agent makes namespaces and bridges and starts storage daemons; it is bounded as it is.
func TestSecurity(t *testing.T) {
	for unit, threshold := range map[string]string{"hotspare-coordinator.service": "20", "hotspare-agent.service": "60"} {
		run(t, "systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold="+threshold, unit)
	}
}

// TestAgentKeepsItsChildren: a restart of the agent must not touch the storage daemons, and what it mounts
// must stay visible, so nothing may give it a mount namespace.
func TestAgentKeepsItsChildren(t *testing.T) {
	data, err := os.ReadFile("hotspare-agent.service")
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string]string{}
	for line := range strings.Lines(string(data)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(key, "#") {
			settings[key] = value
		}
	}
	if settings["KillMode"] != "process" || settings["OOMPolicy"] != "continue" {
		t.Errorf("KillMode is %q, OOMPolicy %q", settings["KillMode"], settings["OOMPolicy"])
	}
	for _, key := range []string{
		"ProtectSystem", "ProtectHome", "PrivateTmp", "PrivateDevices", "PrivateMounts", "ProtectKernelTunables", "ProtectKernelModules",
		"ProtectKernelLogs", "ProtectControlGroups", "ProtectProc", "ProcSubset", "ReadWritePaths", "ReadOnlyPaths", "InaccessiblePaths",
		"BindPaths", "TemporaryFileSystem", "RootDirectory", "DynamicUser", "PrivateNetwork", "PrivateUsers", "MountFlags",
	} {
		if v, ok := settings[key]; ok {
			t.Errorf("%s=%s gives the agent namespaces of its own", key, v)
		}
	}
}

// TestUsersAndDirectories makes both in an empty root.
func TestUsersAndDirectories(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to give directories away")
	}
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	users, err := filepath.Abs("../sysusers.d/hotspare.conf")
	if err != nil {
		t.Fatal(err)
	}
	directories, err := filepath.Abs("../tmpfiles.d/hotspare.conf")
	if err != nil {
		t.Fatal(err)
	}
	run(t, "systemd-sysusers", "--root="+root, users)
	passwd, err := os.ReadFile(filepath.Join(root, "etc/passwd"))
	if err != nil || !strings.Contains(string(passwd), "hotspare:") {
		t.Errorf("no user hotspare: %v\n%s", err, passwd)
	}
	run(t, "systemd-tmpfiles", "--root="+root, "--create", directories)
	for dir, mode := range map[string]os.FileMode{"etc/hotspare": 0o750, "var/lib/hotspare": 0o711, "var/lib/hotspare/instances": 0o711} {
		info, err := os.Stat(filepath.Join(root, dir))
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", dir, info, err)
		}
	}
}
