package byhand

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/digitalocean/go-libvirt"
	"github.com/digitalocean/go-libvirt/socket/dialers"
	"libvirt.org/go/libvirtxml"
)

// with connects to the domain's libvirtd, looks the domain up and calls do; found is false when there is none.
func (d Domain) with(ctx context.Context, do func(l *libvirt.Libvirt, dom libvirt.Domain, found bool) error) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", d.Socket)
	if err != nil {
		return fmt.Errorf("connect to libvirtd of %s: %w", d.Name, err)
	}
	defer conn.Close()
	// The library knows no context: closing the connection ends every call.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	l := libvirt.NewWithDialer(dialers.NewAlreadyConnected(conn))
	if err := l.ConnectToURI(libvirt.QEMUSystem); err != nil {
		return fmt.Errorf("open libvirtd of %s: %w", d.Name, err)
	}
	dom, err := l.DomainLookupByName(d.Name)
	if err != nil && !libvirt.IsNotFound(err) {
		return fmt.Errorf("look up domain %s: %w", d.Name, err)
	}
	return do(l, dom, err == nil)
}

// existing is with for a domain that must be there.
func (d Domain) existing(ctx context.Context, do func(*libvirt.Libvirt, libvirt.Domain) error) error {
	return d.with(ctx, func(l *libvirt.Libvirt, dom libvirt.Domain, found bool) error {
		if !found {
			return fmt.Errorf("there is no domain %s", d.Name)
		}
		return do(l, dom)
	})
}

// turnOff destroys the domain and sees it off.
func (d Domain) turnOff(ctx context.Context) error {
	return d.existing(ctx, func(l *libvirt.Libvirt, dom libvirt.Domain) error {
		if err := l.DomainDestroy(dom); err != nil && !refusedAsOff(err) {
			return err
		}
		state, _, err := l.DomainGetState(dom, 0)
		if err == nil && libvirt.DomainState(state) != libvirt.DomainShutoff {
			err = fmt.Errorf("it is in state %d after it was destroyed", state)
		}
		return err
	})
}

// refusedAsOff says that a domain that should be destroyed is off already.
func refusedAsOff(err error) bool {
	var refused libvirt.Error
	return errors.As(err, &refused) && refused.Code == uint32(libvirt.ErrOperationInvalid)
}

// save writes the RAM to a file, durably, and ends the domain.
func (d Domain) save(ctx context.Context, image string) error {
	return d.existing(ctx, func(l *libvirt.Libvirt, dom libvirt.Domain) error {
		if err := l.DomainSaveFlags(dom, image, nil, uint32(libvirt.DomainSaveRunning)); err != nil {
			return err
		}
		return errors.Join(syncPath(image), syncPath(filepath.Dir(image)))
	})
}

// restore lets the domain go on, if it was saved.
func (d Domain) restore(ctx context.Context, image string) error {
	if _, err := os.Lstat(image); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	err := d.existing(ctx, func(l *libvirt.Libvirt, dom libvirt.Domain) error {
		if active, err := l.DomainIsActive(dom); err != nil || active == 1 {
			return err // a save that failed
		}
		return l.DomainRestoreFlags(image, nil, uint32(libvirt.DomainSaveRunning))
	})
	if err != nil {
		return fmt.Errorf("restore %s: %w", d.Name, err)
	}
	return os.Remove(image)
}

func (d Domain) define(ctx context.Context, xml string) error {
	return d.with(ctx, func(l *libvirt.Libvirt, _ libvirt.Domain, _ bool) error {
		_, err := l.DomainDefineXMLFlags(xml, 0)
		return err
	})
}

func (d Domain) start(ctx context.Context) error {
	return d.existing(ctx, func(l *libvirt.Libvirt, dom libvirt.Domain) error {
		_, err := l.DomainCreateWithFlags(dom, 0)
		return err
	})
}

// remove ends and undefines the domain.
func (d Domain) remove(ctx context.Context) error {
	return d.with(ctx, func(l *libvirt.Libvirt, dom libvirt.Domain, found bool) error {
		if !found {
			return nil
		}
		if err := l.DomainDestroy(dom); err != nil && !refusedAsOff(err) {
			return err
		}
		return l.DomainUndefineFlags(dom, 0)
	})
}

// Definition returns the domain's definition as libvirt keeps it.
func (d Domain) Definition(ctx context.Context) (text string, err error) {
	err = d.existing(ctx, func(l *libvirt.Libvirt, dom libvirt.Domain) error {
		text, err = l.DomainGetXMLDesc(dom, libvirt.DomainXMLInactive)
		return err
	})
	return text, err
}

// syncPath makes a file, or the entries of a folder, durable.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Renamed is a definition under another name, without identity and metadata, and with the console in another file: all else
// is the same machine.
func Renamed(xml, name, console string) (string, error) {
	var dom libvirtxml.Domain
	if err := dom.Unmarshal(xml); err != nil {
		return "", fmt.Errorf("read the definition: %w", err)
	}
	dom.Name, dom.UUID, dom.Metadata = name, "", nil
	for i := range dom.Devices.Serials {
		if s := dom.Devices.Serials[i].Source; s != nil && s.File != nil {
			s.File.Path = console
		}
	}
	for i := range dom.Devices.Consoles {
		if s := dom.Devices.Consoles[i].Source; s != nil && s.File != nil {
			s.File.Path = console
		}
	}
	return dom.Marshal()
}
