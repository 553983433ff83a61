// Package secret opens files that hold secrets, unless somebody else may have read or written them.
package secret

import (
	"crypto/tls"
	"fmt"
	"io"
	"os"
	"syscall"
)

// Exposed reports whether a file may be read or changed by others than this process's user, or root, and read by others than its group.
func Exposed(info os.FileInfo) bool {
	owner, ok := info.Sys().(*syscall.Stat_t)
	return info.Mode().Perm()&0o027 != 0 || !ok || owner.Uid != 0 && int(owner.Uid) != os.Geteuid()
}

// Open opens a file that a setting names. The error says what mends it.
func Open(setting, path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", setting, err)
	}
	info, err := f.Stat()
	switch {
	case err != nil:
		err = fmt.Errorf("cannot read %s: %w", setting, err)
	case !info.Mode().IsRegular():
		err = fmt.Errorf("cannot use %s=%s: it is no file", setting, path)
	case Exposed(info):
		err = fmt.Errorf("cannot use %s=%s: others may read or change it (%s): have this manager's user own it, and chmod 600 %s", setting, path, info.Mode(), path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// most is far more than a key, or a file of credentials, has, in bytes.
const most = 1 << 20

// Read reads a file that a setting names.
func Read(setting, path string) ([]byte, error) {
	f, err := Open(setting, path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("cannot read %s: %w", setting, err)
	case len(text) > most:
		return nil, fmt.Errorf("cannot use %s=%s: it has more than %d bytes", setting, path, most)
	}
	return text, nil
}

// KeyPair reads a certificate, which everybody may read, and its key, which a setting names, both in PEM.
func KeyPair(cert, setting, key string) (tls.Certificate, error) {
	secret, err := Read(setting, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	public, err := os.ReadFile(cert)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(public, secret)
}
