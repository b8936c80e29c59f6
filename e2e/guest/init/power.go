package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	inputEventBytes = 24 // struct input_event on amd64: 16 bytes of time, then type, code, value
	eventKey        = 1  // EV_KEY
	keyPower        = 116
)

// watchPowerButton reports each press of the ACPI power button as nil, and at most one
// error when no button can be watched: the guest still works then, but cannot be shut down politely.
func watchPowerButton() <-chan error {
	pressed := make(chan error, 1)
	devices, err := filepath.Glob("/dev/input/event*")
	if err != nil || len(devices) == 0 {
		pressed <- errors.New("no input device")
		return pressed
	}
	for _, path := range devices {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			pressed <- fmt.Errorf("open %s: %w", path, err)
			return pressed
		}
		go readKeys(os.NewFile(uintptr(fd), path), pressed)
	}
	return pressed
}

// readKeys reads one input device until the guest ends.
func readKeys(f *os.File, pressed chan<- error) {
	event := make([]byte, inputEventBytes)
	for {
		if _, err := f.Read(event); err != nil {
			return
		}
		kind := binary.LittleEndian.Uint16(event[16:])
		code := binary.LittleEndian.Uint16(event[18:])
		value := binary.LittleEndian.Uint32(event[20:])
		if kind == eventKey && code == keyPower && value == 1 {
			pressed <- nil
		}
	}
}
