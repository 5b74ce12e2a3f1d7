package entity

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/bailiwick-dev/bailiwick/internal/policy"
)

// Write writes entities as a file of entities, sorted by type and id: the same
// entities are the same bytes. Each is one line, so that versions of the file
// can be compared. It is YAML, and its lines are JSON, which is read without a
// parser of YAML.
func Write(w io.Writer, m types.EntityMap) error {
	b := bufio.NewWriter(w)
	head := "entities:\n"
	if len(m) == 0 {
		head = "entities: []\n"
	}
	if _, err := b.WriteString(head); err != nil {
		return fmt.Errorf("write entities: %w", err)
	}
	uids := make([]types.EntityUID, 0, len(m))
	for uid := range m {
		uids = append(uids, uid)
	}
	slices.SortFunc(uids, compareUIDs)
	for _, uid := range uids {
		line, err := appendEntity([]byte("- "), m[uid])
		if err != nil {
			return fmt.Errorf("write entities: %s: %w", uid, err)
		}
		if _, err := b.Write(append(line, '\n')); err != nil {
			return fmt.Errorf("write entities: %w", err)
		}
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write entities: %w", err)
	}
	return nil
}

func appendEntity(b []byte, e types.Entity) ([]byte, error) {
	b, err := appendUID(b, e.UID)
	if err != nil {
		return nil, err
	}
	b = b[:len(b)-1] // the brace: there is more
	if e.Attributes.Len() > 0 {
		if b, err = appendValue(append(b, `,"attributes":`...), e.Attributes); err != nil {
			return nil, err
		}
	}
	if e.Parents.Len() > 0 {
		b = append(b, `,"parents":[`...)
		for i, p := range parentsOf(e) {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = appendUID(b, p); err != nil {
				return nil, err
			}
		}
		b = append(b, ']')
	}
	if e.Tags.Len() > 0 {
		if b, err = appendValue(append(b, `,"tags":`...), e.Tags); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

func appendUID(b []byte, uid types.EntityUID) ([]byte, error) {
	b, err := appendUTF8(append(b, `{"type":`...), string(uid.Type))
	if err == nil {
		b, err = appendUTF8(append(b, `,"id":`...), string(uid.ID))
	}
	return append(b, '}'), err
}

// appendValue writes a value in the form that package typed reads back.
func appendValue(b []byte, v types.Value) ([]byte, error) {
	switch v := v.(type) {
	case types.String:
		return appendUTF8(b, string(v))
	case types.Boolean:
		return fmt.Appendf(b, "%t", bool(v)), nil
	case types.Long:
		return fmt.Appendf(b, "%d", int64(v)), nil
	case types.EntityUID:
		return appendUID(b, v)
	case types.Decimal, types.Datetime, types.Duration, types.IPAddr:
		return appendUTF8(b, v.String())
	case types.Set:
		return appendSet(b, v)
	case types.Record:
		return appendRecord(b, v)
	default:
		return nil, fmt.Errorf("a value has a type that is not known: %T", v)
	}
}

func appendSet(b []byte, s types.Set) ([]byte, error) {
	elements := make([][]byte, 0, s.Len())
	for e := range s.All() {
		text, err := appendValue(nil, e)
		if err != nil {
			return nil, err
		}
		elements = append(elements, text)
	}
	slices.SortFunc(elements, bytes.Compare)
	return append(append(append(b, '['), bytes.Join(elements, []byte(","))...), ']'), nil
}

func appendRecord(b []byte, r types.Record) ([]byte, error) {
	b = append(b, '{')
	for i, name := range slices.Sorted(r.Keys()) {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = jsontext.AppendQuote(b, string(name)); err != nil {
			return nil, errors.New("a name is not UTF-8")
		}
		v, _ := r.Get(name)
		if b, err = appendValue(append(b, ':'), v); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

// Read reads all entities of sources once. Entities that sources only look up
// are an error, because nobody knows which there are.
func Read(ctx context.Context, s Sources, set *policy.Set) (types.EntityMap, error) {
	for i, c := range s.SQL {
		for t, q := range c.Types {
			if !q.full() {
				return nil, fmt.Errorf("read entities: sql.%d: types.%s: entities of this type are only looked up: give a query for all", i, t)
			}
		}
	}
	d, err := Open(ctx, Config{Sources: s, Policies: set})
	if err != nil {
		return nil, err
	}
	out := types.EntityMap{}
	for uid, e := range d.World().All() {
		out[uid] = e
	}
	if err := d.Close(); err != nil {
		return nil, fmt.Errorf("read entities: %w", err)
	}
	return out, nil
}

// Import writes all entities of sources to a file of entities, whole or not at
// all, and says how they differ from those that it held.
func Import(ctx context.Context, from Sources, set *policy.Set, file string) (Change, error) {
	now, err := Read(ctx, from, set)
	if err != nil {
		return Change{}, err
	}
	before, err := Read(ctx, Sources{Files: []string{file}}, set)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Change{}, fmt.Errorf("compare with what is there: %w", err)
	}
	if err := writeFile(file, now); err != nil {
		return Change{}, err
	}
	return Diff(before, now), nil
}

func writeFile(file string, m types.EntityMap) error {
	f, err := os.CreateTemp(filepath.Dir(file), ".entities-*")
	if err != nil {
		return fmt.Errorf("write entities: %w", err)
	}
	err = Write(f, m)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write entities: %w", err), os.Remove(f.Name()))
	}
	return nil
}
