// Package revoke knows what is suspended, tells whoever relies on it, and cuts
// what is under way.
//
// Each change of what is suspended begins an epoch. A node, or a gate in another
// process, relies on what it has learnt for the term of a lease that counts from
// the moment it asked; when it cannot renew the lease, nothing is known and
// everything is denied. So a suspension that has been acknowledged holds
// everywhere, whatever becomes of the network (docs/design/016-suspension.md).
package revoke

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/bailiwick-dev/bailiwick/authz"
)

// What can be suspended: the types of the entities that a scope consists of.
const (
	KindAgent   = "agent"   // an agent, or "Application::type/id" for the subject of an application
	KindSession = "session" // an agent run, by the id that records have
	KindOwner   = "owner"   // the person that an agent acts for or belongs to
	KindTool    = "tool"    // a tool or method, by the full name of its action
	KindServer  = "server"  // an upstream
	KindGroup   = "group"   // all agents of a group: a team, a tenant
	KindAll     = "all"     // everything; has no id
)

// unknownGroups in a scope says that nobody has looked which groups the subject
// is in, so that any suspended group may be one.
var unknownGroups = authz.Entity{Type: KindGroup}

// UnknownGroups is part of the scope of a decision whose subject's groups were
// not looked up. A hold on it ends when any group is suspended.
func UnknownGroups() authz.Entity { return unknownGroups }

// Limits of what a [Set] holds: about 20 MB when full.
const (
	maxSuspensions = 10_000
	maxID          = 512
	maxText        = 512
)

// A Suspension is one thing that is suspended, since when, by whom and why.
type Suspension struct {
	authz.Entity
	Since  time.Time `json:"since"`
	By     string    `json:"by"`
	Reason string    `json:"reason"`
}

// Check says what is wrong with what somebody wants to suspend or resume.
func Check(e authz.Entity) error {
	switch e.Type {
	case KindAll:
		if e.ID != "" {
			return errors.New("all has no id")
		}
		return nil
	case KindAgent, KindSession, KindOwner, KindTool, KindServer, KindGroup:
	default:
		return fmt.Errorf("%q cannot be suspended: agent, session, owner, tool, server, group or all", e.Type)
	}
	switch {
	case e.ID == "":
		return fmt.Errorf("which %s? An id is needed", e.Type)
	case len(e.ID) > maxID || !utf8.ValidString(e.ID) || strings.ContainsFunc(e.ID, func(r rune) bool { return r < ' ' }):
		return fmt.Errorf("%.40q is no id: at most %d bytes of text", e.ID, maxID)
	default:
		return nil
	}
}

// A Set is what is suspended during one epoch. It is immutable. A nil Set is
// not "nothing is suspended" but "nothing is known".
type Set struct {
	epoch  uint64
	by     map[authz.Entity]Suspension
	groups bool // some group is suspended
}

// NewSet returns the set of an epoch. Of one that is named twice the first
// counts. It fails if an entry is none, or if there are too many.
func NewSet(epoch uint64, list []Suspension) (*Set, error) {
	if len(list) > maxSuspensions {
		return nil, fmt.Errorf("%d suspensions are more than %d", len(list), maxSuspensions)
	}
	s := &Set{epoch: epoch, by: make(map[authz.Entity]Suspension, len(list))}
	for _, one := range list {
		if err := Check(one.Entity); err != nil {
			return nil, err
		}
		if _, twice := s.by[one.Entity]; !twice {
			s.by[one.Entity] = one
		}
		s.groups = s.groups || one.Type == KindGroup
	}
	return s, nil
}

// Epoch numbers the set: a later one has a higher number.
func (s *Set) Epoch() uint64 { return s.epoch }

// Groups reports whether any group is suspended, so that the groups of a
// subject have to be known.
func (s *Set) Groups() bool { return s != nil && s.groups }

// List returns what is suspended, by kind and id.
func (s *Set) List() []Suspension {
	list := make([]Suspension, 0, len(s.by))
	for _, one := range s.by {
		list = append(list, one)
	}
	slices.SortFunc(list, func(a, b Suspension) int {
		if c := strings.Compare(a.Type, b.Type); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return list
}

// find returns what of a scope is suspended.
func (s *Set) find(scope []authz.Entity) (authz.Entity, bool) {
	if len(s.by) == 0 {
		return authz.Entity{}, false
	}
	all := authz.Entity{Type: KindAll}
	if _, ok := s.by[all]; ok {
		return all, true
	}
	for _, e := range scope {
		if _, ok := s.by[e]; ok {
			return e, true
		}
		if e == unknownGroups && s.groups {
			return e, true
		}
	}
	return authz.Entity{}, false
}

// with is the union of two sets, with the epoch of s.
func (s *Set) with(old *Set) *Set {
	if old == nil {
		return s
	}
	u := &Set{epoch: s.epoch, by: make(map[authz.Entity]Suspension, len(s.by)+len(old.by)), groups: s.groups || old.groups}
	for e, one := range old.by {
		u.by[e] = one
	}
	for e, one := range s.by {
		u.by[e] = one
	}
	return u
}

// reason says to an agent that something is suspended. Who suspended it and why
// is for operators.
func reason(e authz.Entity) authz.Reason {
	switch e.Type {
	case KindAgent:
		return authz.Reason{Code: authz.ReasonAgentSuspended, Message: "The agent is suspended; an operator has to resume it."}
	case KindSession:
		return authz.Reason{Code: authz.ReasonSessionSuspended, Message: "The session is suspended; an operator has to resume it."}
	case KindOwner:
		return authz.Reason{Code: authz.ReasonOwnerSuspended, Message: "Nothing may be done for this person now; an operator has to resume it."}
	case KindTool:
		return authz.Reason{Code: authz.ReasonToolSuspended, Message: "The tool is suspended; others may still be used."}
	case KindServer:
		return authz.Reason{Code: authz.ReasonServerSuspended, Message: "The server is suspended; others may still be used."}
	case KindGroup:
		return authz.Reason{Code: authz.ReasonGroupSuspended, Message: "The agent's group is suspended; an operator has to resume it."}
	default:
		return authz.Reason{Code: authz.ReasonKilled, Message: "Everything is suspended; an operator has to resume it."}
	}
}

// unknown is the reason when nothing is known.
var unknown = authz.Reason{Code: authz.ReasonRevocationUnknown, Message: "Whether this is suspended could not be found out; try again later."}
