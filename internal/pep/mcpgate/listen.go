package mcpgate

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/mcp"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
	"github.com/bailiwick-dev/bailiwick/internal/revoke"
)

// ears are who wants to know when lists may have changed for a reason of the
// gate's own.
type ears struct {
	mu  sync.Mutex
	all map[*ear]bool
}

type ear struct {
	end  *endpoint
	hear func(listKind)
}

func newEars() *ears { return &ears{all: map[*ear]bool{}} }

// add registers hear until the returned function is called.
func (es *ears) add(end *endpoint, hear func(listKind)) (remove func()) {
	e := &ear{end, hear}
	es.mu.Lock()
	defer es.mu.Unlock()
	es.all[e] = true
	return func() {
		es.mu.Lock()
		defer es.mu.Unlock()
		delete(es.all, e)
	}
}

func (es *ears) changed(k listKind) {
	es.mu.Lock()
	var hear []func(listKind)
	for e := range es.all {
		hear = append(hear, e.hear)
	}
	es.mu.Unlock()
	for _, h := range hear {
		h(k)
	}
}

// A subscription is the filter of subscriptions/listen.
type subscription struct {
	lists map[string]bool // by the filter's member
	uris  []string
}

func parseSubscription(params json.RawMessage) (subscription, *refusal) {
	filter, ok := mcp.Get(params, "notifications")
	if !ok || filter[0] != '{' {
		return subscription{}, refuse(reasonParams, "The params need notifications, an object.")
	}
	s := subscription{lists: map[string]bool{}}
	for _, k := range listKinds {
		if v, ok := mcp.Get(filter, k.filter); ok && string(v) == "true" {
			s.lists[k.filter] = true
		}
	}
	if v, ok := mcp.Get(filter, "resourceSubscriptions"); ok && json.Unmarshal(v, &s.uris) != nil {
		return subscription{}, refuse(reasonParams, "resourceSubscriptions must be a list of URIs.")
	}
	return s, nil
}

func (s subscription) wire() json.RawMessage {
	out := map[string]any{}
	for _, k := range listKinds {
		if s.lists[k.filter] {
			out[k.filter] = true
		}
	}
	if len(s.uris) > 0 {
		out["resourceSubscriptions"] = s.uris
	}
	return raw(out)
}

func (s subscription) empty() bool { return len(s.lists) == 0 && len(s.uris) == 0 }

// listen answers subscriptions/listen, the long stream of the modern era, for
// one server or all of them. It is decided per server; what the client could
// not read it cannot subscribe to.
func (g *Gate) listen(ctx context.Context, r *request) answer {
	want, f := parseSubscription(r.msg.Params())
	if f != nil {
		return f.answer(r.msg, mcp.Modern, false)
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	tag := func(m *mcp.Message) *mcp.Message {
		return m.WithParams(set(m.Params(), r.msg.ID(), "_meta", mcp.MetaSubscriptionID))
	}
	// Nothing may come before the acknowledgement.
	acknowledged := make(chan struct{})
	emit := func(m *mcp.Message) {
		select {
		case <-acknowledged:
			r.tell(tag(m))
		case <-ctx.Done():
		}
	}
	honored := subscription{lists: map[string]bool{}}
	var releases []*pep.Release
	var last *refusal
	for _, up := range r.end.upstreams {
		got, release, f := g.listenTo(ctx, r, up, want, emit)
		if f != nil {
			last = f
			continue
		}
		release.OnCut(func(why *revoke.Cut) { stop(why) })
		releases = append(releases, release)
		for k := range got.lists {
			honored.lists[k] = true
		}
		honored.uris = append(honored.uris, got.uris...)
	}
	if len(releases) == 0 {
		return last.answer(r.msg, mcp.Modern, false)
	}
	r.tell(tag(mcp.NewNotification(noteAcknowledged, raw(map[string]any{"notifications": honored.wire()}))))
	close(acknowledged)
	defer g.ears.add(r.end, func(k listKind) {
		if honored.lists[k.filter] {
			g.goDo(func() { emit(mcp.NewNotification(k.note, nil)) })
		}
	})()
	if !honored.empty() {
		select {
		case <-ctx.Done():
		case <-g.taking.Done():
		}
	}
	for _, release := range releases {
		release.Settle(authz.OutcomeSuccess, 0, "")
	}
	var cut *revoke.Cut
	if errors.As(context.Cause(ctx), &cut) {
		return refuse(cut.Code, cut.Message).answer(r.msg, mcp.Modern, false)
	}
	result := raw(map[string]any{"resultType": "complete", "_meta": map[string]any{mcp.MetaSubscriptionID: r.msg.ID()}})
	return answer{msg: mcp.NewResult(r.msg.ID(), result), status: http.StatusOK}
}

// listenTo listens to one server, if that is allowed.
func (g *Gate) listenTo(ctx context.Context, r *request, up *upstream, want subscription, emit func(*mcp.Message)) (subscription, *pep.Release, *refusal) {
	t := target{up, r.msg}
	l, err := r.client.links.link(ctx, up, r)
	if err != nil {
		return subscription{}, nil, g.fault(t, err)
	}
	if !l.ready() {
		if f := g.open(ctx, r, t, l); f != nil {
			return subscription{}, nil, f
		}
	}
	want.uris, err = g.readable(ctx, r.client, up, want.uris)
	if err != nil {
		return subscription{}, nil, refuse(authz.ReasonPDPDown, "What you may read could not be found out; try again later.")
	}
	release, d := g.guard.Ask(ctx, question(r.client, t))
	if release == nil {
		return subscription{}, nil, denied(d)
	}
	got, err := l.listen(ctx, want, emit)
	if err != nil {
		settle(release, nil, err)
		return subscription{}, nil, g.fault(t, err)
	}
	if got.lists == nil {
		got.lists = map[string]bool{}
	}
	// The gate itself knows when policy changes a list.
	for _, k := range listKinds {
		if want.lists[k.filter] && l.about().has(k.capability) {
			got.lists[k.filter] = true
		}
	}
	return got, release, nil
}

// readable returns the URIs that the client could read.
func (g *Gate) readable(ctx context.Context, c *client, up *upstream, uris []string) ([]string, error) {
	if len(uris) == 0 {
		return nil, nil
	}
	items := make([]json.RawMessage, len(uris))
	for i, uri := range uris {
		items[i] = raw(map[string]string{"uri": uri})
	}
	kept, err := g.reachable(ctx, c, up, listings[methodResources], items)
	out := make([]string, len(kept))
	for i, k := range kept {
		out[i] = mcp.GetString(k, "uri")
	}
	return out, err
}
