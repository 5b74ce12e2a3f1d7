package engine

import "github.com/cedar-policy/cedar-go/types"

// A binding is a World in the numbers of a program: what each entity is and is
// in, worked out once for all requests. It holds no part of the World.
type binding struct {
	of    *worldID
	nodes []boundNode // by the World's numbers
	keys  []key       // of all nodes, one after the other
}

// A boundNode is an entity in the numbers of a program.
type boundNode struct {
	// self and typ are its numbers, or -1 when no policy names them.
	self, typ int32
	start     int // of its keys
	count     int32
}

// keptBindings is how many Worlds a program knows at a time: the one in use,
// the one before it while requests still use it, and one that is tried out.
const keptBindings = 3

// Bind works out beforehand what the first request with a World would. Without
// it the requests that come while one does so walk the hierarchy instead.
func (p *Program) Bind(w *World) {
	if w != nil {
		p.binding(w)
	}
}

// binding returns the program's binding of a World, or nil while another
// request works it out: no request waits for another.
func (p *Program) binding(w *World) *binding {
	if b := p.bound(w); b != nil {
		return b
	}
	if !p.binds.TryLock() {
		return nil
	}
	defer p.binds.Unlock()
	if b := p.bound(w); b != nil {
		return b
	}
	list := []*binding{p.bind(w)}
	if old := p.bindings.Load(); old != nil {
		list = append(list, (*old)[:min(len(*old), keptBindings-1)]...)
	}
	p.bindings.Store(&list)
	return list[0]
}

// bound returns the binding of a World if it has been worked out.
func (p *Program) bound(w *World) *binding {
	list := p.bindings.Load()
	if list == nil {
		return nil
	}
	for _, b := range *list {
		if b.of == w.id {
			return b
		}
	}
	return nil
}

func (p *Program) bind(w *World) *binding {
	n := p.index.names
	b := &binding{of: w.id, nodes: make([]boundNode, len(w.uids.list))}
	for i, uid := range w.uids.list {
		node := boundNode{self: -1, typ: -1}
		if id, ok := n.find(uid); ok {
			node.self = id
		}
		if t, ok := n.types[uid.Type]; ok {
			node.typ = t
		}
		b.nodes[i] = node
	}
	for i := range b.nodes {
		node := &b.nodes[i]
		node.start = len(b.keys)
		b.keys = appendOwnKeys(b.keys, node.self, node.typ)
		for _, a := range w.ancestors[i] {
			if id := b.nodes[a].self; id >= 0 {
				b.keys = append(b.keys, makeKey(inEntity, id))
			}
		}
		node.count = int32(len(b.keys) - node.start)
	}
	return b
}

// appendOwnKeys appends the keys that an entity has without its ancestors.
func appendOwnKeys(keys []key, self, typ int32) []key {
	keys = append(keys, anyEntity)
	if typ >= 0 {
		keys = append(keys, makeKey(isType, typ))
	}
	if self >= 0 {
		keys = append(keys, makeKey(isEntity, self), makeKey(inEntity, self))
	}
	return keys
}

func (b *binding) keysOf(n *boundNode) []key { return b.keys[n.start : n.start+int(n.count)] }

// worldBinding finds the binding that a request can use: none if it brings its own
// version of something that entities of its World are in, because then the
// World's ancestors are not the request's.
func (s *scratch) worldBinding() *binding {
	w := s.req.World
	if w == nil {
		return nil
	}
	if len(s.req.Entities) > 0 { // to range over no map takes time too
		for uid := range s.req.Entities {
			if i, ok := w.uids.find(uid); ok && w.above[i] {
				return nil
			}
		}
	}
	return s.p.binding(w)
}

// node returns an entity's number in the World, if what the binding says of it
// holds for this request.
func (s *scratch) node(uid types.EntityUID) (int32, bool) {
	if s.bound == nil {
		return 0, false
	}
	i, ok := s.req.World.uids.find(uid)
	if ok && len(s.req.Entities) > 0 {
		if _, own := s.req.Entities[uid]; own {
			return 0, false
		}
	}
	return i, ok
}
