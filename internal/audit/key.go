package audit

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/transparency-dev/formats/log"
	"golang.org/x/mod/sumdb/note"
)

// The files of an evidence directory, beside the journal.
const (
	// KeyFile holds the private checkpoint key, readable by its owner only.
	KeyFile = "checkpoint.key"
	// PublicKeyFile holds the public checkpoint key, as a verifier key of
	// C2SP signed notes. Give it to whoever is to verify the log.
	PublicKeyFile = "checkpoint.pub"
	// CheckpointFile holds the newest signed checkpoint. It is written after
	// each commit and shows when the journal has lost its end.
	CheckpointFile = "checkpoint"
	lockFile       = "lock"
)

// A Key is a public checkpoint key.
type Key struct {
	text     string
	verifier note.Verifier
}

// ParseKey reads the text of a public key file.
func ParseKey(text []byte) (Key, error) {
	s := strings.TrimSuffix(string(text), "\n")
	v, err := note.NewVerifier(s)
	if err != nil {
		return Key{}, fmt.Errorf("parse checkpoint key: %w", err)
	}
	// One key has one spelling: the parser lets the hash be in upper case.
	_, rest, _ := strings.Cut(s, "+")
	if canonical := fmt.Sprintf("%s+%08x", v.Name(), v.KeyHash()); !strings.HasPrefix(s, canonical+"+") || !strictBase64(rest[9:]) {
		return Key{}, errors.New("parse checkpoint key: not in canonical form")
	}
	return Key{text: s, verifier: v}, nil
}

func strictBase64(s string) bool {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	// The decoder skips line ends, which no canonical form has.
	return err == nil && base64.StdEncoding.EncodeToString(b) == s
}

// ReadKey reads a public key file.
func ReadKey(file string) (Key, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return Key{}, fmt.Errorf("read checkpoint key: %w", err)
	}
	k, err := ParseKey(text)
	if err != nil {
		return Key{}, fmt.Errorf("%s: %w", file, err)
	}
	return k, nil
}

// String is the key as it stands in a public key file.
func (k Key) String() string { return k.text }

// Origin is the name of the log whose checkpoints the key signs.
func (k Key) Origin() string {
	if k.verifier == nil {
		return ""
	}
	return k.verifier.Name()
}

// checkpoint verifies a signed checkpoint. Exactly one spelling of it passes:
// no unused bits in base64, no further lines or signatures.
func (k Key) checkpoint(signed []byte) (log.Checkpoint, error) {
	if k.verifier == nil {
		return log.Checkpoint{}, errors.New("verify checkpoint: no key")
	}
	cp, rest, n, err := log.ParseCheckpoint(signed, k.Origin(), k.verifier)
	if err != nil {
		return log.Checkpoint{}, fmt.Errorf("verify checkpoint: %w", err)
	}
	var again bytes.Buffer
	again.WriteString(n.Text + "\n")
	for _, s := range n.Sigs {
		fmt.Fprintf(&again, "— %s %s\n", s.Name, s.Base64)
		if !strictBase64(s.Base64) {
			return log.Checkpoint{}, errors.New("verify checkpoint: its signature is not in canonical form")
		}
	}
	if len(rest) > 0 || len(n.Sigs) != 1 || !bytes.Equal(again.Bytes(), signed) || string(cp.Marshal()) != n.Text {
		return log.Checkpoint{}, errors.New("verify checkpoint: not in canonical form")
	}
	if len(cp.Hash) != 32 {
		return log.Checkpoint{}, errors.New("verify checkpoint: its root is not a SHA-256")
	}
	return *cp, nil
}

// A signer signs the checkpoints of one log.
type signer struct {
	note note.Signer
	key  Key
}

func (s signer) checkpoint(t tree) ([]byte, error) {
	root := t.root()
	cp := log.Checkpoint{Origin: s.key.Origin(), Size: t.size(), Hash: root[:]}
	signed, err := note.Sign(&note.Note{Text: string(cp.Marshal())}, s.note)
	if err != nil {
		return nil, fmt.Errorf("sign checkpoint: %w", err)
	}
	return signed, nil
}

// loadSigner reads the key of the directory. It makes one only for a log that
// has no entries: a log whose key is gone cannot go on under another.
func loadSigner(dir, origin string, fresh bool) (signer, error) {
	file := filepath.Join(dir, KeyFile)
	info, err := os.Stat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist) && fresh:
		if err := makeKey(file, origin); err != nil {
			return signer{}, err
		}
	case errors.Is(err, fs.ErrNotExist):
		return signer{}, fmt.Errorf("the checkpoint key %s is gone: restore it from a backup, or move the whole directory away to begin a new log", file)
	case err != nil:
		return signer{}, fmt.Errorf("read checkpoint key: %w", err)
	case privateFilesMatter && info.Mode().Perm()&0o077 != 0:
		return signer{}, fmt.Errorf("the checkpoint key %s can be read by others: run 'chmod 600 %s', and consider it known", file, file)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return signer{}, fmt.Errorf("read checkpoint key: %w", err)
	}
	s, err := parseSigner(strings.TrimSuffix(string(text), "\n"))
	if err != nil {
		return signer{}, fmt.Errorf("%s: %w", file, err)
	}
	if s.key.Origin() != origin {
		return signer{}, fmt.Errorf("the log in %s is named %q, not %q: set node to the first in the configuration, or choose another data directory", dir, s.key.Origin(), origin)
	}
	return s, publishKey(filepath.Join(dir, PublicKeyFile), s.key)
}

func makeKey(file, origin string) error {
	skey, vkey, err := note.GenerateKey(rand.Reader, origin)
	if err != nil {
		return fmt.Errorf("make checkpoint key: %w", err)
	}
	if _, err := ParseKey([]byte(vkey)); err != nil {
		return fmt.Errorf("make checkpoint key for %q: %w", origin, err)
	}
	return writeFile(file, []byte(skey+"\n"), 0o600)
}

// parseSigner reads "PRIVATE+KEY+<name>+<hash>+<base64 of 1 and the seed>".
func parseSigner(skey string) (signer, error) {
	n, err := note.NewSigner(skey)
	if err != nil {
		// The error of the parser may not show any of the key.
		return signer{}, errors.New("not a checkpoint key")
	}
	// NewSigner has accepted it, so there are five fields.
	raw, err := base64.StdEncoding.DecodeString(strings.SplitN(skey, "+", 5)[4])
	if err != nil || len(raw) != 1+ed25519.SeedSize {
		return signer{}, errors.New("not an Ed25519 checkpoint key")
	}
	pub := ed25519.NewKeyFromSeed(raw[1:]).Public().(ed25519.PublicKey)
	vkey, err := note.NewEd25519VerifierKey(n.Name(), pub)
	if err != nil {
		return signer{}, fmt.Errorf("derive the public checkpoint key: %w", err)
	}
	k, err := ParseKey([]byte(vkey))
	if err != nil {
		return signer{}, err
	}
	return signer{note: n, key: k}, nil
}

// publishKey writes the public key file, or checks the one that is there.
func publishKey(file string, k Key) error {
	old, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return writeFile(file, []byte(k.String()+"\n"), 0o644)
	case err != nil:
		return fmt.Errorf("read public checkpoint key: %w", err)
	case string(old) != k.String()+"\n":
		return fmt.Errorf("%s is not the public half of %s: one of the two was replaced", file, KeyFile)
	}
	return nil
}

// writeFile makes a file appear whole and durable, or not at all.
func writeFile(file string, content []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", file, err), os.Remove(f.Name()))
	}
	return syncDir(filepath.Dir(file))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}
