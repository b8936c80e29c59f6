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
		writeCPIOEntry(b, i+1, mode, e.name, e.data)
	}
	writeCPIOEntry(b, 0, 0, "TRAILER!!!", nil)
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write initramfs: %w", err)
	}
	return nil
}

// writeCPIOEntry writes one member; the buffered writer remembers the first error.
func writeCPIOEntry(b *bufio.Writer, inode, mode int, name string, data []byte) {
	const headerBytes = 110
	fields := []int{inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0}
	b.WriteString("070701")
	for _, f := range fields {
		fmt.Fprintf(b, "%08x", f)
	}
	b.WriteString(name + "\x00")
	b.WriteString(padding(headerBytes + len(name) + 1))
	b.Write(data)
	b.WriteString(padding(len(data)))
}

// padding returns the zero bytes that bring n up to a multiple of four.
func padding(n int) string {
	return strings.Repeat("\x00", (4-n%4)%4)
}
