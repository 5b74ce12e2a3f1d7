package entity

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
)

// A source is where entities come from: files or a database.
type source interface {
	// name is the source for people, and kind is "files", "postgres" or
	// "sqlite".
	name() string
	kind() string
	// read returns all that the source holds in full, and a digest of it. There
	// may be no rows if the digest is that which has been seen.
	read(ctx context.Context, seen string) (rows []row, digest string, err error)
	close() error
}

// A followed is a source and what it held when it was last right. The
// directory's mu guards what follows busy.
type followed struct {
	source source
	// every is how often it is looked at while something is wrong, and pace is
	// how often when nothing is.
	every, pace time.Duration
	// busy is held while the source is read, so that what was read later is also
	// taken over later.
	busy sync.Mutex

	rows     []row
	entities types.EntityMap
	// digest is of rows. refused is of what was read and not taken over while
	// the epoch was refusedAt: it is not worth trying again before another.
	digest    string
	refused   string
	refusedAt uint64
	lastTry   time.Time
	lastRead  time.Time
	err       error
}

// load reads a source for the first time.
func (f *followed) load(ctx context.Context, s *resolved.Schema) (err error) {
	f.rows, f.digest, err = f.source.read(ctx, "")
	if err == nil {
		f.entities, err = typeRows(f.rows, s)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", f.source.name(), err)
	}
	f.lastRead = time.Now()
	f.lastTry = f.lastRead
	return nil
}

// Follow looks at the sources again and again, each at its own pace, until ctx
// ends, and puts in force what has changed. A source that is wrong or down
// changes nothing: what was in force stays, the log says why, and so does
// [Directory.Health]. A database that failed is tried here, not by decisions.
func (d *Directory) Follow(ctx context.Context) {
	var all sync.WaitGroup
	for _, f := range d.sources {
		all.Go(func() { d.repeat(ctx, f.every, func() { d.refreshDue(ctx, f) }) })
	}
	all.Go(func() { d.repeat(ctx, d.every, d.refreshExtra) })
	all.Wait()
}

func (d *Directory) repeat(ctx context.Context, every time.Duration, do func()) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			do()
		}
	}
}

// Refresh looks at everything now. The error is that of [Directory.Health].
func (d *Directory) Refresh(ctx context.Context) error {
	for _, f := range d.sources {
		d.refreshOne(ctx, f)
	}
	d.refreshExtra()
	return d.Health()
}

// refreshDue looks at a source if it is time to, or if something is wrong.
func (d *Directory) refreshDue(ctx context.Context, f *followed) {
	d.mu.Lock()
	// Ticks come a little early or late.
	due := f.health() != nil || time.Since(f.lastTry) > f.pace-f.every/2
	d.mu.Unlock()
	if due {
		d.refreshOne(ctx, f)
	}
}

func (d *Directory) refreshOne(ctx context.Context, f *followed) {
	f.busy.Lock()
	defer f.busy.Unlock()
	d.mu.Lock()
	seen := f.digest
	if f.refused != "" && f.refusedAt == d.Epoch() {
		seen = f.refused
	}
	d.mu.Unlock()
	// Without the lock: a database that hangs must not keep a file from being
	// taken over.
	rows, digest, err := f.source.read(ctx, seen)
	if ctx.Err() != nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	f.lastTry = time.Now()
	switch {
	case err == nil && digest == f.digest:
		f.succeeded()
		return
	case err == nil && digest == seen:
		return // as wrong as it was
	case err != nil:
		err = fmt.Errorf("read %s: %w", f.source.name(), err)
	default:
		if err = d.adopt(f, rows); err == nil {
			f.digest = digest
			f.succeeded()
			return
		}
		err = fmt.Errorf("take over %s: %w", f.source.name(), err)
	}
	f.refused, f.refusedAt = digest, d.Epoch()
	d.failed(f, err)
}

func (f *followed) succeeded() { f.refused, f.err, f.lastRead = "", nil, time.Now() }

// adopt puts what a source holds now in force.
func (d *Directory) adopt(f *followed, rows []row) error {
	v := d.View()
	entities, err := typeRows(rows, v.set.Schema())
	if err != nil {
		return err
	}
	parts := d.parts()
	parts[slices.Index(d.sources, f)] = entities
	if err := d.publish(v.set, parts, d.extras); err != nil {
		return err
	}
	c := Diff(f.entities, entities)
	f.rows, f.entities = rows, entities
	d.logger.Info("entities in force", "source", f.source.name(), "entities", len(entities),
		"added", c.Added, "removed", c.Removed, "changed", c.Changed)
	return nil
}

// failed notes a failure, and logs it when it is another than before.
func (d *Directory) failed(f *followed, err error) {
	if f.err == nil || f.err.Error() != err.Error() {
		d.logger.Error("entities not taken over; those before stay in force", "source", f.source.name(), "error", err)
	}
	f.err = err
}

func (d *Directory) refreshExtra() {
	now := d.askExtra()
	d.mu.Lock()
	defer d.mu.Unlock()
	if maps.EqualFunc(now, d.extras, types.Entity.Equal) {
		d.extraErr = nil
		return
	}
	if err := d.publish(d.View().set, d.parts(), now); err != nil {
		if d.extraErr == nil {
			d.logger.Error("the program's own entities not taken over; those before stay in force", "error", err)
		}
		d.extraErr = fmt.Errorf("take over the program's own entities: %w", err)
		return
	}
	d.extras, d.extraErr = now, nil
}

// Health returns what is wrong with sources now, or nil.
func (d *Directory) Health() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	errs := []error{d.extraErr}
	for _, f := range d.sources {
		errs = append(errs, f.health())
	}
	return errors.Join(errs...)
}

func (f *followed) health() error {
	if db, ok := f.source.(*database); ok && f.err == nil {
		return db.circuit.broken()
	}
	return f.err
}

// Stats are what is to be known of one source.
type Stats struct {
	// Source is the file, or the database without its password. Kind is
	// "files", "postgres" or "sqlite".
	Source, Kind string
	// Entities is how many of it are in force. Those that are looked up are
	// not counted.
	Entities int
	// LastRead is when the source was last found right.
	LastRead time.Time
	// Err is why it is not now, or nil.
	Err error
}

// Stats returns what is to be known of each source.
func (d *Directory) Stats() []Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]Stats, len(d.sources))
	for i, f := range d.sources {
		out[i] = Stats{Source: f.source.name(), Kind: f.source.kind(), Entities: len(f.entities), LastRead: f.lastRead, Err: f.health()}
	}
	return out
}
