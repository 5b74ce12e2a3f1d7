package pdp

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/audit"
	"github.com/bailiwick-dev/bailiwick/internal/catalog"
	"github.com/bailiwick-dev/bailiwick/internal/engine"
	"github.com/bailiwick-dev/bailiwick/internal/provenance"
)

// Origins are where the arguments of a request are from. Of the zero Origins
// nothing is known, which no policy should trust.
type Origins struct {
	// Args are the origins of the arguments that the catalogue says carry
	// authority, by path. One that is absent, null or empty has none.
	Args map[string]provenance.Origin
	// Authority is the least trusted of the arguments that carry authority, and
	// Content the least trusted address, host or account in the others.
	Authority, Content provenance.Origin

	args   map[string]any // decoded
	chosen bool           // see provenance.Call
}

// append appends what policy sees of the origins.
func (o *Origins) append(f engine.Fields, m *memory, op *catalog.Operation) engine.Fields {
	f = append(f, origin("authority", o.Authority, m.authority[:0]), origin("content", o.Content, m.content[:0]))
	if op.Application != "" {
		return f
	}
	args := make(engine.Fields, 0, len(o.Args))
	for _, path := range op.Authority {
		if at, ok := o.Args[path]; ok {
			args = append(args, origin(types.String(path), at, make(engine.Fields, 0, 6)))
		}
	}
	return append(f, engine.Nested("args", args))
}

func origin(name types.String, o provenance.Origin, f engine.Fields) engine.Field {
	return engine.Nested(name, append(f,
		engine.String("origin", o.Trust.String()), engine.Long("trust", o.Trust.Rank()),
		engine.Bool("named", o.Named), engine.Bool("contested", o.Contested),
		engine.String("tool", o.Tool), engine.Long("step", o.Step),
	))
}

// The parts of a request that are no argument.
const (
	ofAuthority = "(authority)"
	ofContent   = "(content)"
)

// recorded is what the record says of the origins.
func (o *Origins) recorded() []audit.Origin {
	var list []audit.Origin
	add := func(of string, at provenance.Origin) {
		if at != provenance.None {
			list = append(list, audit.Origin{
				Of: of, Origin: at.Trust.String(), Tool: at.Tool, Step: at.Step, Named: at.Named, Contested: at.Contested,
			})
		}
	}
	for _, path := range slices.Sorted(maps.Keys(o.Args)) {
		add(path, o.Args[path])
	}
	add(ofAuthority, o.Authority)
	add(ofContent, o.Content)
	return list
}

// OriginsOf are the origins that a record holds.
func OriginsOf(list []audit.Origin) Origins {
	o := Origins{Authority: provenance.None, Content: provenance.None}
	for _, r := range list {
		trust, ok := provenance.ParseTrust(r.Origin)
		if !ok && r.Origin == provenance.User.String() {
			trust = provenance.User
		}
		at := provenance.Origin{Trust: trust, Tool: r.Tool, Step: r.Step, Named: r.Named, Contested: r.Contested}
		switch r.Of {
		case ofAuthority:
			o.Authority = at
		case ofContent:
			o.Content = at
		default:
			if o.Args == nil {
				o.Args = map[string]provenance.Origin{}
			}
			o.Args[r.Of] = at
		}
	}
	return o
}

// NewOrigins are the origins that somebody supposes: of arguments by path, and of
// the content. An argument that carries authority, is given, and of which nothing
// is supposed is unknown.
func NewOrigins(op *catalog.Operation, input json.RawMessage, args map[string]provenance.Origin, content provenance.Origin) Origins {
	o := Origins{Args: map[string]provenance.Origin{}, Authority: provenance.None, Content: content}
	given, _ := arguments(input)
	for _, path := range op.Authority {
		at, ok := args[path]
		if !ok {
			if at = provenance.Unseen; !isGiven(given, path) {
				continue
			}
		}
		o.Args[path] = at
		o.Authority = provenance.Worse(o.Authority, at)
	}
	if op.Undecided {
		o.Authority = provenance.Unseen
	}
	return o
}

// isGiven reports whether there is anything at a path.
func isGiven(args map[string]any, path string) bool {
	return slices.ContainsFunc(valuesOf(args, path), provenance.Says)
}

// valuesOf is what an argument is: the path may be a name with dots in it.
func valuesOf(args map[string]any, path string) []any {
	if whole, ok := args[path]; ok {
		return []any{whole}
	}
	return valuesAt(nil, args, strings.Split(path, "."))
}

// valuesAt appends what is at a path, lists looked through.
func valuesAt(to []any, v any, path []string) []any {
	if len(path) == 0 {
		return append(to, v)
	}
	switch v := v.(type) {
	case map[string]any:
		if member, ok := v[path[0]]; ok {
			to = valuesAt(to, member, path[1:])
		}
	case []any:
		for _, e := range v {
			to = valuesAt(to, e, path)
		}
	}
	return to
}

// trace finds out where the arguments are from.
func (c *inquiry) trace(op *catalog.Operation) {
	c.traced(op)
	c.record.Why.Origins = c.origins.recorded()
}

func (c *inquiry) traced(op *catalog.Operation) {
	c.origins = Origins{Authority: provenance.Unseen, Content: provenance.Unseen}
	args, ok := arguments(c.req.Input)
	if !ok {
		return // the catalogue is going to refuse it
	}
	c.origins.args = args
	c.origins.Authority, c.origins.Content = provenance.None, provenance.None
	if len(args) == 0 {
		if op.Undecided { // nobody has said that it may be done unasked
			c.origins.Authority = provenance.Unseen
		}
		return
	}
	c.book(func(x *provenance.Index) {
		for _, path := range op.Authority {
			o := provenance.None
			for _, v := range valuesOf(args, path) {
				o = provenance.Worse(o, x.Of(v))
			}
			if o == provenance.None {
				continue
			}
			if c.origins.Args == nil {
				c.origins.Args = map[string]provenance.Origin{}
			}
			c.origins.Args[path] = o
			c.origins.Authority = provenance.Worse(c.origins.Authority, o)
		}
		for name, value := range args {
			o := x.Of(value)
			if o.Trust == provenance.Outsiders {
				c.origins.chosen = true
			}
			switch {
			case op.Undecided:
				c.origins.Authority = provenance.Worse(c.origins.Authority, o)
			case !op.IsAuthority(name):
				c.origins.Content = provenance.Worse(c.origins.Content, x.PointersOf(value))
			}
		}
	})
}

func arguments(raw json.RawMessage) (map[string]any, bool) {
	if len(raw) == 0 {
		return nil, true
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var args map[string]any
	return args, dec.Decode(&args) == nil
}

// book opens the session's page.
func (c *inquiry) book(f func(*provenance.Index)) {
	s := &c.visit.Snapshot
	c.p.Provenance.With(s.ID, s.Calls == 0 && s.Denials == 0, f)
}

// await notes that what was released is going to return something. From now on,
// whoever acts in the session may know it.
func (c *inquiry) await() {
	if c.op.Application != "" || c.op.Effects[0] == discover {
		return
	}
	call := provenance.Call{
		Tool: c.op.Action, Step: c.visit.Calls, Marks: c.op.Returns(c.req.Server), Chosen: c.origins.chosen,
		Writes: slices.Contains(c.op.Effects, catalog.EffectWrite),
	}
	c.book(func(x *provenance.Index) {
		x.LearnArguments(c.origins.args, call)
		switch {
		case !c.req.Advisory:
			x.Expect()
		case call.Marks.Least() <= provenance.Outsiders:
			x.Tear() // nobody is going to say what it returned
		}
	})
	if c.req.Advisory {
		return
	}
	if lost, ok := c.p.awaited.put(c.record.Decision, awaitedCall{session: c.session, call: call}); ok {
		c.p.Provenance.With(lost.session, false, (*provenance.Index).Tear)
	}
}

// learn lets the session learn what a released action has returned.
func (p *PDP) learn(out authz.Outcome) {
	a, ok := p.awaited.take(out.Decision)
	if !ok {
		return // decided before this process began, or reported already
	}
	size := 0
	for _, doc := range out.Output {
		size += len(doc)
	}
	// A gate that tells nothing of what the agent saw leaves a hole.
	silent := len(out.Output) == 0 && out.Bytes > 0
	p.Provenance.With(a.session, false, func(x *provenance.Index) {
		x.Settle()
		if out.Cut || size > authz.MaxOutput || silent && a.call.Marks.Least() <= provenance.Outsiders {
			x.Tear()
		}
		if size > authz.MaxOutput {
			return
		}
		if out.Status != authz.OutcomeSuccess {
			// An error message quotes what it likes: no field of it is the tool's own.
			a.call.Marks = provenance.Marks{Rest: min(a.call.Marks.Least(), provenance.Outsiders)}
		}
		for _, doc := range out.Output {
			x.LearnOutput(a.call, doc)
		}
	})
}

// mostAwaited bounds how many released actions may be without an outcome.
const mostAwaited = 1 << 16

// awaited are the released actions whose outcome is not known yet.
type awaited struct {
	mu    sync.Mutex
	calls map[string]awaitedCall
	order []string // a ring of decisions, the oldest at next
	next  int
}

type awaitedCall struct {
	session string
	call    provenance.Call
}

func newAwaited() *awaited { return &awaited{calls: map[string]awaitedCall{}} }

// put adds one. It returns the one that had to go for it, if there was one.
func (a *awaited) put(decision string, c awaitedCall) (lost awaitedCall, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.order) < mostAwaited {
		a.order = append(a.order, decision)
	} else {
		old := a.order[a.next]
		lost, ok = a.calls[old]
		delete(a.calls, old)
		a.order[a.next] = decision
		a.next = (a.next + 1) % mostAwaited
	}
	a.calls[decision] = c
	return lost, ok
}

func (a *awaited) take(decision string) (awaitedCall, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c, ok := a.calls[decision]
	delete(a.calls, decision)
	return c, ok
}
