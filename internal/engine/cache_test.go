package engine

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/cedar-policy/cedar-go/types"
)

var cacheSteps = flag.Int("cache.steps", 30_000, "random requests and changes by which TestCacheChangesNothing compares a cache with none")

// A cacheRun is requests to one set of policies, through a cache and without.
type cacheRun struct {
	w     *partialWorld
	cache *Cache
	// forget plants a fault: reads that a wrong extractor would miss.
	forget func(Read) bool

	steps, decided, hits int
}

func newCacheRun(base *world) *cacheRun {
	w := base.partial()
	return &cacheRun{w: w, cache: NewCache(w.p, nil, 64)}
}

// step asks once. The request has the same principal, action and resource as
// all of the run, the same things are unknown of it, and anything else may have
// changed, sometimes the epoch. It returns what is wrong.
func (r *cacheRun) step() string {
	r.steps++
	if r.w.one(50) { // a new epoch: the policies or the world have changed
		r.cache = NewCache(r.w.p, nil, 64)
	}
	full := r.w.completion()
	if r.w.one(2) {
		full = r.w.other()
	}
	asked := *full
	asked.Entities = maps.Clone(full.Entities)
	maps.DeleteFunc(asked.Entities, func(uid types.EntityUID, _ types.Entity) bool { return r.w.isUnknown(uid) })
	a, decided, hit := r.answer(&asked)
	if hit {
		r.hits++
	}
	if !decided {
		return ""
	}
	r.decided++
	if d := differ(a, r.w.p.Authorize(full)); d != "" {
		return fmt.Sprintf("%v\nhit: %v\n%s\n%s", full, hit, d, r.w.describe())
	}
	return ""
}

func (r *cacheRun) answer(req *Request) (Answer, bool, bool) {
	if r.forget == nil {
		return r.cache.Answer(req, r.w.unknown)
	}
	key := cacheKey{req.Principal, req.Action, req.Resource}
	if a, decided, open := r.cache.find(key, req, r.w.unknown); decided || open {
		return a, decided, decided
	}
	part := r.w.p.Partial(req, r.w.unknown)
	part.Reads = slices.DeleteFunc(part.Reads, r.forget)
	r.cache.put(key, part)
	return part.Answer, part.Decided, false
}

// With a cache every request has the answer that it has without, whatever
// changes between them.
func TestCacheChangesNothing(t *testing.T) {
	t.Parallel()
	steps, decided, hits := 0, 0, 0
	for seed := uint64(0); steps < *cacheSteps; seed++ {
		base := newWorld(seed)
		for range 20 {
			r := newCacheRun(base)
			for range 60 {
				if d := r.step(); d != "" {
					t.Fatalf("seed %d: with the cache the answer is another\n%s", seed, d)
				}
			}
			steps, decided, hits = steps+r.steps, decided+r.decided, hits+r.hits
		}
	}
	t.Logf("%d requests, %d decided in spite of what was unknown, %d from the cache", steps, decided, hits)
	if hits < steps/20 || decided-hits < steps/50 {
		t.Errorf("of %d requests only %d were decided and %d remembered", steps, decided, hits)
	}
}

// A read set that misses something is noticed by the test above.
func TestCacheTestSeesPlantedFaults(t *testing.T) {
	t.Parallel()
	for name, forget := range map[string]func(Read) bool{
		"the context":            func(r Read) bool { return r.Context },
		"attributes of entities": func(r Read) bool { return !r.Context && r.Kind == ReadAttribute },
		"what somebody is in":    func(r Read) bool { return r.Kind == ReadIn || r.Kind == ReadAncestors },
		"has":                    func(r Read) bool { return r.Kind == ReadHas },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			noticed(t, func(w *partialWorld) bool {
				r := &cacheRun{w: w, cache: NewCache(w.p, nil, 64), forget: forget}
				for range 60 {
					if r.step() != "" {
						return true
					}
				}
				return false
			})
		})
	}
}

func TestCacheIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(1).partial()
	c := NewCache(w.p, nil, 10)
	for i := range 100 {
		req := *w.req
		req.Resource = types.NewEntityUID("Doc", types.String(fmt.Sprint(i)))
		c.Answer(&req, w.unknown)
		if c.held > 10 {
			t.Fatalf("%d answers in a cache of 10", c.held)
		}
	}
}

// The long form of TestCacheChangesNothing found this after a million
// requests: nobody is in the auditors as far as is known, which was remembered of
// a request without any groups, and said of one with a group of which nothing
// is known.
func TestUnknownAncestorIsNoKnownAnswer(t *testing.T) {
	t.Parallel()
	p := unchecked(t, `
@id("all") permit (principal, action, resource);
@id("auditors") forbid (principal, action, resource) when { principal in Group::"auditors" };`)
	c := NewCache(p, nil, 10)
	remote := types.NewEntityUID("Group", "remote")
	unknown := Unknown{Entities: func(uid types.EntityUID) bool { return uid == remote || uid.Type == "Server" }}
	ask := func(groups ...types.EntityUID) (decided, hit bool) {
		t.Helper()
		req := deletion(nil)
		req.Entities = types.EntityMap{req.Principal: {UID: req.Principal, Parents: types.NewEntityUIDSet(groups...)}}
		a, decided, hit := c.Answer(req, unknown)
		if decided && !a.Allow {
			t.Errorf("in %v: %+v", groups, a)
		}
		return decided, hit
	}
	for _, tt := range []struct {
		groups       []types.EntityUID
		decided, hit bool
	}{
		{nil, true, false},
		{nil, true, true},
		{[]types.EntityUID{group("staff")}, true, true},
		{[]types.EntityUID{remote}, false, false},
	} {
		if decided, hit := ask(tt.groups...); decided != tt.decided || hit != tt.hit {
			t.Errorf("in %v: decided %v, hit %v", tt.groups, decided, hit)
		}
	}
}
