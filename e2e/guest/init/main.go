// Command init is the whole user space of the test guest: the kernel starts it as /init
// from an initramfs. It loads the virtio modules, brings up the network that the kernel
// command line describes, serves the guest's state over HTTP and ends the guest on the
// ACPI power button. The end-to-end tests are its only users; it stores nothing but the
// records on /dev/vda, so that whatever survives a failover is what the disk or the saved
// memory carried over.
//
// Kernel arguments (package guest writes them):
//
//	hs.nic=<mac>,<ip/prefix>[,<gateway>]   one for each NIC, matched by MAC
//	hs.name=<hostname>                     default "guest"
//	hs.port=<tcp port>                     a second port besides 80
//	hs.records=<duration>                  write one record each interval from boot
//	hs.unhealthy=1                         GET /health answers 503
//	hs.ignore-shutdown=1                   the power button does nothing
//	hs.metadata=<duration>                 take user-data and ssh keys from 169.254.169.254, and ask there each
//	                                       interval whether the guest is preempted
//	hs.ready=<duration>                    so long after a notice, say that the guest may be taken
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// haltDelay lets the last console line reach the serial port before the machine goes.
const haltDelay = 100 * time.Millisecond

func main() {
	if err := run(); err != nil {
		fmt.Printf("hotspare-guest broken: %v\n", err)
	}
	// Process 1 must not return: the kernel would panic and hide the message.
	time.Sleep(haltDelay)
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Printf("hotspare-guest cannot power off: %v\n", err)
	}
	select {}
}

// run boots the guest and serves until the power button is pressed.
func run() error {
	if err := mountAll(); err != nil {
		return err
	}
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return fmt.Errorf("read kernel command line: %w", err)
	}
	s, err := parseSettings(string(cmdline))
	if err != nil {
		return err
	}
	if err := loadModules("/modules"); err != nil {
		return err
	}
	if err := syscall.Sethostname([]byte(s.name)); err != nil {
		return fmt.Errorf("set hostname %s: %w", s.name, err)
	}
	addresses, err := configureNetwork(s.nics, s.metadataEvery > 0)
	if err != nil {
		return err
	}
	pressed := watchPowerButton()
	store := openRecords("/dev/vda", s.recordEvery)
	srv, err := newServer(s, store)
	if err != nil {
		return err
	}
	if s.metadataEvery > 0 {
		go srv.told.follow(s.metadataEvery, s.readyAfter)
	}
	failed, err := srv.listen()
	if err != nil {
		return err
	}
	fmt.Printf("hotspare-guest ready name=%s ip=%s boot_id=%s marker=%q\n",
		s.name, strings.Join(addresses, ","), srv.bootID, store.state().Marker)
	for {
		select {
		case err := <-failed:
			return err
		case err := <-pressed:
			if err != nil {
				fmt.Printf("hotspare-guest watches no power button: %v\n", err)
				pressed = nil
				continue
			}
			if s.ignoreShutdown {
				fmt.Println("hotspare-guest ignores the power button")
				continue
			}
			fmt.Println("hotspare-guest powers off")
			return nil
		}
	}
}

// mountAll mounts the kernel's file systems.
func mountAll() error {
	for _, m := range []struct{ kind, target string }{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}} {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return fmt.Errorf("make %s: %w", m.target, err)
		}
		if err := unix.Mount(m.kind, m.target, m.kind, 0, ""); err != nil && err != unix.EBUSY {
			return fmt.Errorf("mount %s on %s: %w", m.kind, m.target, err)
		}
	}
	return nil
}

// loadModules loads every module named in dir/order, one file name to a line.
func loadModules(dir string) error {
	order, err := os.ReadFile(dir + "/order")
	if err != nil {
		return fmt.Errorf("read module order: %w", err)
	}
	for name := range strings.FieldsSeq(string(order)) {
		f, err := os.Open(dir + "/" + name)
		if err != nil {
			return fmt.Errorf("open module %s: %w", name, err)
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("load module %s: %w", name, err)
		}
	}
	return nil
}
