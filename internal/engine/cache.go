package engine

import (
	"sync"

	"github.com/cedar-policy/cedar-go/types"
)

// A Cache remembers the answers that do not depend on what is unknown of a
// request, so that the unknown need not be found out: see
// docs/design/006-fast-path.md. It holds answers of one Program about one World
// and is thrown away with either. It is safe for concurrent use.
//
// An answer is found again by the principal, the action, the resource, and the
// answers to every question that its evaluation asked.
type Cache struct {
	program *Program
	world   *World
	limit   int

	mu      sync.RWMutex
	entries map[cacheKey]*cacheEntry
	held    int // answers
}

type cacheKey struct{ principal, action, resource types.EntityUID }

// A cacheEntry is what is remembered of one question: in each lane the answers
// of those requests whose evaluation asked the same.
type cacheEntry struct {
	lanes []lane
	// open is set once a request was not decided. The next one may be, but
	// finding out would cost as much again, so nobody tries.
	open bool
}

type lane struct {
	paths   []ReadPath
	answers map[string]Answer
}

// maxLanes bounds how many read sets are tried for one principal, action and
// resource.
const maxLanes = 4

// NewCache returns an empty cache of at most limit answers, about 1 kB each.
func NewCache(p *Program, w *World, limit int) *Cache {
	return &Cache{program: p, world: w, limit: limit, entries: map[cacheKey]*cacheEntry{}}
}

// Of reports whether the cache holds answers of a program about a world.
func (c *Cache) Of(p *Program, w *World) bool { return c.program == p && c.world == w }

// Answer returns the answer to a request of which some is unknown, if it is the
// same whatever that is. Requests must be about the cache's World; what is
// unknown must be the same for all with the same principal, action and resource,
// and entities that are unknown must be neither in the request nor in the World.
// hit says that the answer was remembered.
func (c *Cache) Answer(req *Request, u Unknown) (a Answer, decided, hit bool) {
	key := cacheKey{req.Principal, req.Action, req.Resource}
	a, decided, open := c.find(key, req, u)
	if decided || open {
		return a, decided, decided
	}
	part := c.program.Partial(req, u)
	c.put(key, part)
	return part.Answer, part.Decided, false
}

func (c *Cache) find(key cacheKey, req *Request, u Unknown) (a Answer, decided, open bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	e := c.entries[key]
	if e == nil {
		return Answer{}, false, false
	}
	var room [256]byte
	for i := range e.lanes {
		reads, ok := c.program.Key(req, u, e.lanes[i].paths, room[:0])
		if !ok {
			continue
		}
		if a, ok := e.lanes[i].answers[string(reads)]; ok {
			return a, true, false
		}
	}
	return Answer{}, false, e.open
}

func (c *Cache) put(key cacheKey, part PartialAnswer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held >= c.limit {
		// Beginning anew costs each answer one evaluation, and is simple.
		c.entries, c.held = map[cacheKey]*cacheEntry{}, 0
	}
	e := c.entries[key]
	if e == nil {
		e = &cacheEntry{}
		c.entries[key] = e
	}
	c.held++
	if !part.Decided {
		e.open = true
		return
	}
	paths := part.Reads.Paths()
	reads := string(part.Reads.AppendKey(nil))
	for i := range e.lanes {
		if samePaths(e.lanes[i].paths, paths) {
			e.lanes[i].answers[reads] = part.Answer
			return
		}
	}
	if len(e.lanes) == maxLanes {
		e.open = true
		return
	}
	e.lanes = append(e.lanes, lane{paths: paths, answers: map[string]Answer{reads: part.Answer}})
}

func samePaths(a, b []ReadPath) bool {
	if len(a) != len(b) {
		return false
	}
	var x, y []byte
	for i := range a {
		x, y = a[i].appendKey(x[:0]), b[i].appendKey(y[:0])
		if string(x) != string(y) {
			return false
		}
	}
	return true
}
