package pdp

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/audit"
	"github.com/bailiwick-dev/bailiwick/internal/engine"
	"github.com/bailiwick-dev/bailiwick/internal/policy"
)

const (
	// remembered bounds the answers that shortcuts remember, about 50 MB.
	remembered = 50_000
	// checkEvery is how often a remembered answer is found out for real all the
	// same.
	checkEvery = 64
	// mostPolicies is up to how many policies a shortcut is looked for: finding
	// one for a subject that is looked up walks all of them.
	mostPolicies = 2_000
)

// shortcuts are the allows that do not depend on what would have to be looked
// up, nor on anything in the context. Only what is looked up for each request
// is worth it: an answer from memory costs as much as this does
// (docs/design/006-fast-path.md).
type shortcuts struct {
	cache               atomic.Pointer[engine.Cache]
	hits, misses, wrong atomic.Uint64
}

// A shortcut is an answer that has been found without looking anything up.
type shortcut struct {
	answer engine.Answer
	// taken: it is the answer. Otherwise, with found, it is what the answer
	// should come out as.
	taken, found bool
}

// shortcut looks for one.
func (p *PDP) shortcut(v *Version, view EntityView, q *engine.Request, named []types.EntityUID, req authz.Request) shortcut {
	s := &p.shortcuts
	w := view.World()
	unknown := func(uid types.EntityUID) bool {
		if !view.Lookup(uid.Type) {
			return false
		}
		_, known := w.Entity(uid)
		return !known
	}
	if w == nil || s.wrong.Load() > 0 || p.Suspensions.Watch().Set().Groups() || asserts(req) || !slices.ContainsFunc(named, unknown) || len(v.Program.Set().Policies()) > mostPolicies {
		return shortcut{}
	}
	for uid := range q.Entities {
		if unknown(uid) { // something is known of it: its groups, say
			return shortcut{}
		}
	}
	c := s.cache.Load()
	if c == nil || !c.Of(v.Program, w) {
		c = engine.NewCache(v.Program, w, remembered)
		s.cache.Store(c) // whoever loses the race begins anew once more
	}
	// All of the context is unknown: time, session, strength of authentication,
	// and whatever the request says.
	a, decided, hit := c.Answer(q, engine.Unknown{Context: [][]types.String{{}}, Entities: unknown})
	if !hit {
		s.misses.Add(1)
	}
	if !decided || !a.Allow { // a denial needs to know what would change it
		return shortcut{}
	}
	return shortcut{answer: a, found: true, taken: !hit || s.hits.Add(1)%checkEvery != 0}
}

// asserts reports whether a PEP says anything of the entities, which counts
// only as far as it is not known.
func asserts(req authz.Request) bool {
	a := req.Asserted
	return a != nil && (len(a.SubjectProperties) > 0 || len(a.ResourceProperties) > 0)
}

// check compares a shortcut that was not taken with what came out. A difference
// is an incident: no shortcut is ever taken again by this process.
func (p *PDP) check(s shortcut, a engine.Answer, decision string) {
	if !s.found || sameAnswer(s.answer, a) {
		return
	}
	p.shortcuts.wrong.Add(1)
	details, err := json.Marshal(map[string]string{"decision": decision, "remembered": s.answer.Code, "real": a.Code})
	if err == nil {
		err = p.Log.Post(audit.Record{Kind: audit.KindSystem, Time: p.Now(), Effect: "shortcut_wrong", Decision: decision, System: details})
	}
	p.Logger.Error("a shortcut was wrong; none is taken any more", "decision_id", decision, "remembered", s.answer.Code, "real", a.Code, "recorded", fmt.Sprint(err))
}

func sameAnswer(a, b engine.Answer) bool {
	return a.Allow == b.Allow && a.Code == b.Code && len(a.Errors) == len(b.Errors) &&
		slices.EqualFunc(a.Determining, b.Determining, func(x, y *policy.Policy) bool { return x == y })
}

// ShortcutStats are how often an answer was remembered, how often not, and how
// often it was wrong. Once one was wrong, none is taken any more.
type ShortcutStats struct{ Hits, Misses, Wrong uint64 }

// Shortcuts returns how the shortcuts are doing.
func (p *PDP) Shortcuts() ShortcutStats {
	s := &p.shortcuts
	return ShortcutStats{Hits: s.hits.Load(), Misses: s.misses.Load(), Wrong: s.wrong.Load()}
}

// InFlight is how many decisions are under way.
func (p *PDP) InFlight() int64 { return p.inFlight.Load() }
