// Package entity supplies what is known of agents, groups, users and resources.
//
// A [Directory] follows the operator's files and tables. What it reads in full
// it publishes as one immutable [engine.World]; what is looked up on demand it
// reads for each decision. It is the policy information point (PIP).
package entity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"

	"github.com/bailiwick-dev/bailiwick/internal/engine"
	"github.com/bailiwick-dev/bailiwick/internal/policy"
)

// Sources say where entities come from.
type Sources struct {
	// Files are files of entities (YAML or JSON), or directories of such.
	Files []string `yaml:"files"`
	// SQL are the operator's own databases.
	SQL []SQL `yaml:"sql"`
}

// A Config says what a directory reads.
type Config struct {
	Sources Sources
	// Policies are the policies in force. Entities must fit their schema.
	// Required.
	Policies *policy.Set
	// Extra returns entities that the program itself knows, such as agents and
	// their groups. It is asked again whenever sources are. An entity that is
	// also in a source is an error. Nil: there are none.
	Extra func() types.EntityMap
	// Every is how often files are looked at. Default: every second.
	Every time.Duration
	// Logger gets what changes and what fails. Nil: nobody does.
	Logger *slog.Logger
}

// A Directory holds the entities in force. It is safe for concurrent use.
type Directory struct {
	extra   func() types.EntityMap
	every   time.Duration
	logger  *slog.Logger
	sources []*followed
	lookups lookups
	view    atomic.Pointer[View]

	// mu is held to change the view, and guards what it is made of.
	mu       sync.Mutex
	extras   types.EntityMap
	extraErr error
}

// A View is the entities in force at one moment, and a way to those that are
// looked up. A decision uses one view from beginning to end: what is in the
// World of one view may have to be looked up in another.
type View struct {
	world *engine.World
	epoch uint64
	set   *policy.Set
	reach reach
	d     *Directory
}

// Open reads all sources. A source that cannot be read, or that does not fit the
// schema, is an error. The caller closes the directory.
func Open(ctx context.Context, c Config) (*Directory, error) {
	if c.Policies == nil {
		return nil, errors.New("open entities: there are no policies to say what fits")
	}
	if err := c.Sources.Check(); err != nil {
		return nil, fmt.Errorf("open entities: %w", err)
	}
	d := &Directory{extra: c.Extra, every: c.Every, logger: c.Logger, lookups: lookups{}}
	if d.every <= 0 {
		d.every = time.Second
	}
	if d.logger == nil {
		d.logger = slog.New(slog.DiscardHandler)
	}
	err := d.open(ctx, c)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open entities: %w", err), d.Close())
	}
	return d, nil
}

func (d *Directory) open(ctx context.Context, c Config) error {
	for _, f := range c.Sources.Files {
		d.sources = append(d.sources, &followed{source: &files{path: f}, every: d.every, pace: d.every})
	}
	for _, conf := range c.Sources.SQL {
		db, err := openDatabase(conf)
		if err != nil {
			return err
		}
		d.sources = append(d.sources, &followed{source: db, every: min(db.refresh, retry), pace: db.refresh})
		db.addLookups(d.lookups)
	}
	for _, f := range d.sources {
		if err := f.load(ctx, c.Policies.Schema()); err != nil {
			return err
		}
	}
	d.extras = d.askExtra()
	return d.publish(c.Policies, d.parts(), d.extras)
}

func (d *Directory) askExtra() types.EntityMap {
	if d.extra == nil {
		return nil
	}
	return d.extra()
}

// parts are the entities of the sources, in their order.
func (d *Directory) parts() []types.EntityMap {
	out := make([]types.EntityMap, len(d.sources))
	for i, f := range d.sources {
		out[i] = f.entities
	}
	return out
}

// publish puts a World of all parts in force, or returns why it cannot be.
func (d *Directory) publish(set *policy.Set, parts []types.EntityMap, extras types.EntityMap) error {
	if err := d.declared(set.Schema()); err != nil {
		return err
	}
	r, err := newReach(set, d.lookups)
	if err != nil {
		return err
	}
	size := len(extras)
	for _, p := range parts {
		size += len(p)
	}
	all := make(types.EntityMap, size)
	for i, p := range append([]types.EntityMap{extras}, parts...) {
		for uid, e := range p {
			if _, twice := all[uid]; twice {
				return fmt.Errorf("%s is in %s and in another source, or is the program's own", uid, d.sources[i-1].source.name())
			}
			all[uid] = e
		}
	}
	w, err := engine.NewWorld(all)
	if err != nil {
		return err
	}
	r.look(w)
	v := &View{world: w, epoch: 1, set: set, reach: r, d: d}
	if before := d.view.Load(); before != nil {
		v.epoch = before.epoch + 1
	}
	d.view.Store(v)
	return nil
}

// declared refuses tables of types that a schema doesn't know.
func (d *Directory) declared(s *resolved.Schema) error {
	for _, f := range d.sources {
		db, ok := f.source.(*database)
		if !ok {
			continue
		}
		for _, t := range sortedTypes(db.types) {
			if _, ok := s.Entities[t]; !ok {
				return fmt.Errorf("%s: %w", db.name(), unknownType(s, t))
			}
		}
	}
	return nil
}

// SetPolicies puts other policies in force: entities must fit their schema, and
// [View.Fetch] follows attributes as far as their conditions do. With an error
// nothing has changed, and the policies must not be put in force.
//
// Decisions that run meanwhile use the view that they have; [View.Policies]
// says which policies it is for.
func (d *Directory) SetPolicies(set *policy.Set) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	parts := make([]types.EntityMap, len(d.sources))
	for i, f := range d.sources {
		var err error
		if parts[i], err = typeRows(f.rows, set.Schema()); err != nil {
			return fmt.Errorf("check entities: %w", err)
		}
	}
	if err := d.publish(set, parts, d.extras); err != nil {
		return fmt.Errorf("check entities: %w", err)
	}
	for i, f := range d.sources {
		f.entities = parts[i]
	}
	return nil
}

// View returns what is in force now. It is never nil.
func (d *Directory) View() *View { return d.view.Load() }

// World returns the World in force now. Decisions take it from a [View].
func (d *Directory) World() *engine.World { return d.View().world }

// Epoch grows whenever World changes. Entities that are looked up are read for
// each decision, and no epoch covers them.
func (d *Directory) Epoch() uint64 { return d.View().epoch }

// Lookup reports whether entities of a type are looked up on demand.
func (d *Directory) Lookup(t types.EntityType) bool { return d.lookups[t] != nil }

// Fetch is [View.Fetch] of the view in force now.
func (d *Directory) Fetch(ctx context.Context, uids ...types.EntityUID) (types.EntityMap, error) {
	return d.View().Fetch(ctx, uids...)
}

// List is [View.List] of the view in force now.
func (d *Directory) List(ctx context.Context, t types.EntityType, after string, limit int) ([]types.EntityUID, error) {
	return d.View().List(ctx, t, after, limit)
}

// World returns the view's World. It is never nil.
func (v *View) World() *engine.World { return v.world }

// Epoch tells the view from others of its directory: the higher, the later.
func (v *View) Epoch() uint64 { return v.epoch }

// Policies returns the policies whose schema the entities fit.
func (v *View) Policies() *policy.Set { return v.set }

// Close closes the sources.
func (d *Directory) Close() error {
	var errs []error
	for _, f := range d.sources {
		errs = append(errs, f.source.close())
	}
	return errors.Join(errs...)
}
