package trust

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// secretMode keeps keys to their owner.
const secretMode = 0o600

// WriteFile replaces a file by one that only its owner can read: after a crash it is the old or the new
// one, whole and on disk.
func WriteFile(path string, content []byte) error {
	if err := writeFile(path, content); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func writeFile(path string, content []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if err := fill(f, content); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil // the new file is in place; only its order after a crash is left to the system
	}
	_ = d.Sync()
	return d.Close()
}

func fill(f *os.File, content []byte) error {
	_, err := f.Write(content)
	if err == nil {
		err = f.Chmod(secretMode)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
