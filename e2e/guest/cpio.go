package guest

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// cpioEntry is one file or directory of an initramfs; directories come before what is in them.
type cpioEntry struct {
	name string
	dir  bool
	data []byte
}

// writeCPIO writes a "newc" archive, the only format the kernel unpacks: a header of fourteen hexadecimal numbers, the
// name and the data, each padded to four bytes. Every file is executable; owners and times are zero, so that equal input gives equal bytes.
func writeCPIO(w io.Writer, entries []cpioEntry) error {
	b := bufio.NewWriter(w)
	for i, e := range entries {
		mode := 0o100755
		if e.dir {
			mode = 0o040755
		}
		if err := writeCPIOEntry(b, i+1, mode, e.name, e.data); err != nil {
			return fmt.Errorf("write %s to initramfs: %w", e.name, err)
		}
	}
	if err := writeCPIOEntry(b, 0, 0, "TRAILER!!!", nil); err != nil {
		return fmt.Errorf("write the end of initramfs: %w", err)
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write initramfs: %w", err)
	}
	return nil
}

// writeCPIOEntry writes one member.
func writeCPIOEntry(w io.Writer, inode, mode int, name string, data []byte) error {
	const headerBytes = 110
	var head strings.Builder
	fields := []int{inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0}
	head.WriteString("070701")
	for _, f := range fields {
		fmt.Fprintf(&head, "%08x", f)
	}
	head.WriteString(name + "\x00")
	head.WriteString(padding(headerBytes + len(name) + 1))
	for _, part := range [][]byte{[]byte(head.String()), data, []byte(padding(len(data)))} {
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	return nil
}

// padding returns the zero bytes that bring n up to a multiple of four.
func padding(n int) string {
	return strings.Repeat("\x00", (4-n%4)%4)
}
