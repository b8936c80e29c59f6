package agent

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// HostBoot returns the time since the host booted (CLOCK_BOOTTIME): it goes on while the host is
// suspended and is never set, so a permit cannot outlive its duration.
func HostBoot() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic("agent: every Linux has a boot-time clock: " + err.Error())
	}
	return time.Duration(t.Nano())
}

// HostBootID returns the kernel's identifier of the present boot.
func HostBootID() (string, error) {
	const path = "/proc/sys/kernel/random/boot_id"
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read the boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}
