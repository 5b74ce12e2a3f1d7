package engine

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/google/go-cmp/cmp"
)

func uidOf(t types.EntityType, id types.String) types.EntityUID { return types.NewEntityUID(t, id) }

// entity returns an entity for a map.
func entity(uid types.EntityUID, parents ...types.EntityUID) types.Entity {
	return types.Entity{UID: uid, Parents: types.NewEntityUIDSet(parents...)}
}

func entities(list ...types.Entity) types.EntityMap {
	m := types.EntityMap{}
	for _, e := range list {
		m[e.UID] = e
	}
	return m
}

func mustWorld(t *testing.T, list ...types.Entity) *World {
	t.Helper()
	w, err := NewWorld(entities(list...))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestNewWorldRefusesWhatIsAmbiguous(t *testing.T) {
	t.Parallel()
	a, b, c := uidOf("Group", "a"), uidOf("Group", "b"), uidOf("Group", "c")
	chain := types.EntityMap{}
	for i := range maxAncestors + 2 {
		e := entity(uidOf("Link", types.String(fmt.Sprint(i))), uidOf("Link", types.String(fmt.Sprint(i+1))))
		chain[e.UID] = e
	}
	// Go starts to range over a map at one of eight places.
	loops := []types.EntityUID{b, c, uidOf("Group", "d"), uidOf("Group", "e"), uidOf("Group", "f"), uidOf("Group", "g")}
	cycles := entities(entity(a, loops...))
	for _, uid := range loops {
		cycles[uid] = entity(uid, uid)
	}
	wide := types.EntityMap{}
	var parents []types.EntityUID
	for i := range maxAncestors + 1 {
		parents = append(parents, uidOf("Link", types.String(fmt.Sprint(i))))
	}
	wide[a] = entity(a, parents...)
	for _, tt := range []struct {
		name     string
		entities types.EntityMap
		want     string
	}{
		{"its own parent", entities(entity(a, a)), `make world: Group::"a" is in itself`},
		{"a cycle", entities(entity(a, b), entity(b, c), entity(c, b)), `make world: Group::"b" is in itself`},
		{"several cycles", cycles, `make world: Group::"b" is in itself`},
		{"another key", types.EntityMap{a: entity(b)}, `make world: Group::"b" is given as Group::"a"`},
		{"no uid", types.EntityMap{a: {}}, `make world: ::"" is given as Group::"a"`},
		{"nobody", entities(types.Entity{}), `make world: ::"" has no type`},
		{"nobody for a parent", entities(entity(a, types.EntityUID{})), `make world: ::"" has no type`},
		{"an action", entities(entity(uidOf("Action", "x"))), `make world: Action::"x" is an action, and actions are the schema's`},
		{"an action for a parent", entities(entity(a, uidOf("A", "x"), uidOf("N::Action", "x"))), `make world: N::Action::"x" is an action, and actions are the schema's`},
		{"too deep", chain, `make world: Link::"4097" is in a hierarchy of more than 4096 entities`},
		{"too many", wide, `make world: Group::"a" is in more than 4096 entities`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for range 5 { // the same each time
				w, err := NewWorld(tt.entities)
				if w != nil || err == nil || err.Error() != tt.want {
					t.Fatalf("got %v, %v, want %s", w, err, tt.want)
				}
			}
		})
	}
}

func TestWorldIsInOrder(t *testing.T) {
	t.Parallel()
	w := mustWorld(t,
		entity(uidOf("Server", "s")), entity(uidOf("Agent", "b"), uidOf("Group", "g"), uidOf("Group", "gone")),
		entity(uidOf("Group", "g"), uidOf("Group", "h")), entity(uidOf("Agent", "a")), entity(uidOf("Group", "h"), uidOf("Elsewhere", "e")))
	var all []string
	for uid, e := range w.All() {
		if e.UID != uid {
			t.Errorf("%s has %s", uid, e.UID)
		}
		all = append(all, uid.String())
	}
	want := []string{`Agent::"a"`, `Agent::"b"`, `Group::"g"`, `Group::"h"`, `Server::"s"`}
	if d := cmp.Diff(want, all); d != "" || w.Len() != len(want) {
		t.Errorf("%d (-want +got)\n%s", w.Len(), d)
	}
	for range w.All() {
		break // must not go on
	}
	for of, want := range map[types.EntityType][]types.EntityUID{
		"Agent": {uidOf("Agent", "a"), uidOf("Agent", "b")}, "Group": {uidOf("Group", "g"), uidOf("Group", "h")}, "Elsewhere": {}, "None": nil,
	} {
		got := w.OfType(of)
		if !slices.Equal(got, want) || len(got) != cap(got) {
			t.Errorf("%s: %v with room for %d, want %v", of, got, cap(got), want)
		}
	}
	if e, ok := w.Entity(uidOf("Agent", "b")); !ok || e.Parents.Len() != 2 {
		t.Errorf("got %v %v", e, ok)
	}
	for _, none := range []types.EntityUID{uidOf("Group", "gone"), uidOf("Group", "x"), uidOf("None", "x")} {
		if e, ok := w.Entity(none); ok || !e.UID.IsZero() {
			t.Errorf("%s: got %v", none, e)
		}
	}
}

// What a request brings is worth more than the World, and the two make one
// hierarchy.
func TestARequestAddsToItsWorld(t *testing.T) {
	t.Parallel()
	p := mustCompile(t, `@id("staff") permit (principal in Group::"staff", action, resource in Server::"bank");
@id("clearance") permit (principal, action, resource) when { principal.clearance == 9 };`)
	alice, team, staff, bank, file := uidOf("Agent", "alice"), uidOf("Group", "team"), uidOf("Group", "staff"), uidOf("Server", "bank"), uidOf("McpResource", "x")
	nine := types.NewRecord(types.RecordMap{"clearance": types.Long(9)})
	known := entity(alice, team)
	known.Attributes = nine
	w := mustWorld(t, known, entity(team, staff), entity(bank), entity(file, bank))
	for _, tt := range []struct {
		name     string
		own      types.EntityMap
		resource types.EntityUID
		want     []string
	}{
		{"nothing of its own", nil, file, []string{"clearance", "staff"}},
		{"an agent from a token", entities(entity(alice, team)), file, []string{"staff"}},
		{"an agent without groups", entities(entity(alice)), file, nil},
		{"a group of its own", entities(entity(team)), file, []string{"clearance"}},
		{"a resource of its own", entities(entity(uidOf("McpResource", "y"), bank)), uidOf("McpResource", "y"), []string{"clearance", "staff"}},
		{"a parent that the World does not have", entities(entity(staff, uidOf("Group", "all"))), file, []string{"clearance", "staff"}},
	} {
		for range 2 { // the second time with a binding
			req := bankRequest(1)
			req.Entities, req.World, req.Resource = tt.own, w, tt.resource
			a := p.Authorize(req)
			if d := cmp.Diff(append([]string{}, tt.want...), ids(a.Determining)); d != "" {
				t.Errorf("%s: (-want +got)\n%s %v", tt.name, d, a)
			}
		}
	}
}

func TestAProgramKnowsSeveralWorlds(t *testing.T) {
	t.Parallel()
	p := mustCompile(t, `@id("a") permit (principal in Group::"staff", action, resource);`)
	p.Bind(nil)
	alice, staff := uidOf("Agent", "alice"), uidOf("Group", "staff")
	in, out := mustWorld(t, entity(alice, staff)), mustWorld(t, entity(alice), entity(staff))
	p.Bind(in)
	if (*p.bindings.Load())[0].of != in.id {
		t.Error("nothing was bound")
	}
	for range 2 * keptBindings {
		for w, want := range map[*World]bool{in: true, out: false, mustWorld(t, entity(alice, staff)): true} {
			req := bankRequest(1)
			req.Entities, req.World = nil, w
			if got := p.Authorize(req).Allow; got != want {
				t.Errorf("got %v, want %v", got, want)
			}
		}
	}
	if n := len(*p.bindings.Load()); n != keptBindings {
		t.Errorf("%d bindings are kept", n)
	}
}

// A request that meets a World for the first time while another works it out
// decides without.
func TestNoRequestWaitsForABinding(t *testing.T) {
	t.Parallel()
	p := mustCompile(t, `@id("a") permit (principal in Group::"staff", action, resource);`)
	req := bankRequest(1)
	req.Entities, req.World = nil, mustWorld(t, entity(req.Principal, uidOf("Group", "staff")))
	p.binds.Lock()
	if !p.Authorize(req).Allow || p.bindings.Load() != nil {
		t.Error("denied, or bound without the lock")
	}
	p.binds.Unlock()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				if !p.Authorize(req).Allow {
					t.Error("denied")
				}
			}
		})
	}
	wg.Wait()
	if n := len(*p.bindings.Load()); n != 1 {
		t.Errorf("one World was bound %d times", n)
	}
}
