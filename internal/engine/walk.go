package engine

import (
	"slices"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/eval"
)

// A walker evaluates conditions of which some is unknown, and notes what it
// looks at. It looks at operands in Cedar's order, because one that fails keeps
// the next from being evaluated.
type walker struct {
	s                        *scratch
	unknown                  Unknown
	reads                    map[string]Read // by path
	permits, forbids, failed []int32         // policies
}

// A result is what an expression comes to: a value, or a failure that is the
// same in every completion, or it is open.
type result struct {
	value  types.Value
	failed bool
	open   possibilities
	// from is where a record was found that has not been looked at yet: often
	// only one attribute of it will be.
	from *place
}

// A place is in the context, or in the attributes of an entity.
type place struct {
	context bool
	entity  types.EntityUID
	path    []types.String
}

func (p *place) child(name types.String) *place {
	return &place{context: p.context, entity: p.entity, path: append(slices.Clip(p.path), name)}
}

func (p *place) read(kind ReadKind) ReadPath {
	return ReadPath{Kind: kind, Context: p.context, Entity: p.entity, Path: p.path}
}

var (
	failure  = result{failed: true}
	anything = result{open: canAll}
	// someFailure is a failure of which it is open what it is.
	someFailure = result{open: canFail}
)

func exactly(v types.Value) result { return result{value: v} }

// perhaps is a truth value, open unless there is only one that it can be.
func perhaps(can possibilities) result {
	switch can {
	case canNo:
		return exactly(types.False)
	case canYes:
		return exactly(types.True)
	default:
		return result{open: can}
	}
}

// can returns what r may come to where a truth value is needed.
func (r result) can() possibilities {
	switch {
	case r.open != 0:
		return r.open
	case r.value == types.True:
		return canYes
	case r.value == types.False:
		return canNo
	default:
		return canFail
	}
}

// and is r && right. Nothing is known of right unless r can be true.
func (r result) and(right func() result) result {
	switch {
	case r.can()&canYes == 0:
		return r
	case r.open == 0:
		return right()
	default:
		return perhaps(r.can().and(right().can()))
	}
}

func (r result) not() result {
	if r.failed {
		return r
	}
	return perhaps(r.can().not())
}

// truth evaluates an expression where a truth value is needed.
func (w *walker) truth(n ast.IsNode) result {
	r := w.value(n)
	if _, ok := r.value.(types.Boolean); r.open == 0 && !ok {
		return failure
	}
	return r
}

// value evaluates an expression, and looks at all of its value.
func (w *walker) value(n ast.IsNode) result {
	r := w.eval(n)
	if r.from == nil {
		return r
	}
	if _, beneath := w.unknown.at(r.from.path); r.from.context && beneath {
		return anything
	}
	return exactly(w.note(r.from.read(ReadAttribute)).Value)
}

// eval evaluates an expression. What it does not know is anything.
func (w *walker) eval(n ast.IsNode) result {
	switch n := n.(type) {
	case ast.NodeValue:
		return exactly(n.Value)
	case ast.NodeTypeVariable:
		return w.variable(n.Name)
	case ast.NodeTypeAccess:
		return w.access(n)
	case ast.NodeTypeHas:
		return w.has(n)
	case ast.NodeTypeAnd:
		return w.truth(n.Left).and(func() result { return w.truth(n.Right) })
	case ast.NodeTypeOr:
		// a || b is !(!a && !b), failures included.
		return w.truth(n.Left).not().and(func() result { return w.truth(n.Right).not() }).not()
	case ast.NodeTypeNot:
		return w.truth(n.Arg).not()
	case ast.NodeTypeIfThenElse:
		return w.ifThenElse(n)
	case ast.NodeTypeIn:
		return w.in(w.value(n.Left), n.Right)
	case ast.NodeTypeIsIn:
		return w.isIn(n)
	case ast.NodeTypeGetTag:
		return w.getTag(n)
	case ast.NodeTypeHasTag:
		return w.hasTag(n)
	case ast.NodeTypeRecord:
		return w.record(n)
	default:
		return w.operator(n)
	}
}

func (w *walker) variable(name types.String) result {
	switch name {
	case "principal":
		return exactly(w.s.req.Principal)
	case "action":
		return exactly(w.s.req.Action)
	case "resource":
		return exactly(w.s.req.Resource)
	default:
		if unknown, _ := w.unknown.at(nil); unknown {
			return anything
		}
		return result{value: w.s.context(), from: &place{context: true}}
	}
}

func (w *walker) access(n ast.NodeTypeAccess) result {
	of := w.eval(n.Arg)
	switch v := of.value.(type) {
	case types.Record:
		if of.from == nil {
			attribute, ok := v.Get(n.Value)
			if !ok {
				return failure
			}
			return exactly(attribute)
		}
		return w.attribute(v, of.from.child(n.Value))
	case types.EntityUID:
		switch {
		case v.IsZero():
			return failure
		case w.isUnknown(v):
			return anything
		}
		e, _ := w.s.entity(v) // what is missing has no attributes, and the note says so
		return w.attribute(e.Attributes, &place{entity: v, path: []types.String{n.Value}})
	}
	return of.unless(failure)
}

// unless returns what an operator comes to whose operand is not of its type,
// unless the operand is not a value.
func (r result) unless(value result) result {
	switch {
	case r.failed:
		return r
	case r.open != 0:
		return anything
	default:
		return value
	}
}

// attribute returns the attribute of a record at a place.
func (w *walker) attribute(of types.Record, at *place) result {
	v, ok := of.Get(at.path[len(at.path)-1])
	record, isRecord := v.(types.Record)
	if !w.settled(at, isRecord) {
		return anything
	}
	if isRecord {
		return result{value: record, from: at}
	}
	w.note(at.read(ReadAttribute))
	if !ok {
		return failure
	}
	return exactly(v)
}

// settled reports whether it is known what is at a place, leaving aside what is
// beneath. If there is no record but something unknown beneath, then there may
// be a record after all.
func (w *walker) settled(at *place, isRecord bool) bool {
	if !at.context {
		return true
	}
	unknown, beneath := w.unknown.at(at.path)
	return !unknown && (isRecord || !beneath)
}

func (w *walker) has(n ast.NodeTypeHas) result {
	of := w.eval(n.Arg)
	var at *place
	switch v := of.value.(type) {
	case types.Record:
		attribute, ok := v.Get(n.Value)
		if of.from == nil {
			return exactly(types.Boolean(ok))
		}
		at = of.from.child(n.Value)
		_, isRecord := attribute.(types.Record)
		if !w.settled(at, isRecord) {
			return perhaps(canNo | canYes)
		}
	case types.EntityUID:
		if w.isUnknown(v) {
			return perhaps(canNo | canYes)
		}
		at = &place{entity: v, path: []types.String{n.Value}}
	default:
		return of.unless(failure)
	}
	return exactly(w.note(at.read(ReadHas)).Value)
}

func (w *walker) ifThenElse(n ast.NodeTypeIfThenElse) result {
	c := w.truth(n.If)
	switch {
	case c.failed:
		return c
	case c.value == types.True:
		return w.eval(n.Then)
	case c.value == types.False:
		return w.eval(n.Else)
	}
	can := c.can() & canFail
	if c.can()&canYes != 0 {
		can |= w.value(n.Then).can()
	}
	if c.can()&canNo != 0 {
		can |= w.value(n.Else).can()
	}
	return perhaps(can)
}

func (w *walker) isIn(n ast.NodeTypeIsIn) result {
	left := w.value(n.Left)
	if e, ok := left.value.(types.EntityUID); ok && e.Type != n.EntityType {
		return exactly(types.False)
	}
	return w.in(left, n.Entity)
}

func (w *walker) in(left result, right ast.IsNode) result {
	e, ok := left.value.(types.EntityUID)
	if !ok {
		return left.unless(failure)
	}
	of := w.value(right)
	switch v := of.value.(type) {
	case types.EntityUID:
		return w.inAny(e, []types.EntityUID{v})
	case types.Set:
		var entities []types.EntityUID
		for element := range v.All() {
			if f, ok := element.(types.EntityUID); ok {
				entities = append(entities, f)
			}
		}
		switch v.Len() - len(entities) {
		case 0:
			return w.inAny(e, entities)
		case 1:
			return failure
		default:
			return someFailure // cedar-go names the element that it meets first
		}
	}
	return of.unless(failure)
}

// inAny notes the first answer that is yes, or all that are no.
func (w *walker) inAny(e types.EntityUID, of []types.EntityUID) result {
	if slices.Contains(of, e) {
		return exactly(types.True)
	}
	in, all := w.closure(e)
	slices.SortFunc(of, func(a, b types.EntityUID) int { return slices.Compare(appendEntity(nil, a), appendEntity(nil, b)) })
	for _, f := range of {
		if slices.Contains(in, f) {
			w.noteIn(e, f)
			return exactly(types.True)
		}
	}
	if !all {
		return perhaps(canNo | canYes)
	}
	for _, f := range of {
		w.noteIn(e, f)
	}
	return exactly(types.False)
}

func (w *walker) noteIn(e, f types.EntityUID) {
	if _, fixed := w.s.p.actions[e]; !fixed {
		w.note(ReadPath{Kind: ReadIn, Entity: e, Other: f})
	}
}

func (w *walker) getTag(n ast.NodeTypeGetTag) result {
	left := w.value(n.Left)
	e, ok := left.value.(types.EntityUID)
	switch {
	case !ok:
		return left.unless(failure)
	case e.IsZero():
		return someFailure // the message may hold an address
	}
	right := w.value(n.Right)
	name, ok := right.value.(types.String)
	switch {
	case !ok:
		return right.unless(failure)
	case w.isUnknown(e):
		return anything
	}
	r := w.note(ReadPath{Kind: ReadTag, Entity: e, Path: []types.String{name}})
	if r.End != Found {
		return failure
	}
	return exactly(r.Value)
}

func (w *walker) hasTag(n ast.NodeTypeHasTag) result {
	left := w.value(n.Left)
	e, ok := left.value.(types.EntityUID)
	if !ok {
		return left.unless(failure)
	}
	right := w.value(n.Right)
	name, ok := right.value.(types.String)
	switch {
	case !ok:
		return right.unless(failure)
	case w.isUnknown(e):
		return perhaps(canNo | canYes)
	}
	return exactly(w.note(ReadPath{Kind: ReadHasTag, Entity: e, Path: []types.String{name}}).Value)
}

// record evaluates a record literal. cedar-go evaluates the elements in any
// order, so of several failures any may be the one.
func (w *walker) record(n ast.NodeTypeRecord) result {
	m := types.RecordMap{}
	open, failures := false, 0
	for _, e := range n.Elements {
		r := w.value(e.Value)
		switch {
		case r.failed:
			failures++
		case r.open != 0:
			open = true
		default:
			m[e.Key] = r.value
		}
	}
	switch {
	case failures > 1 || failures == 1 && open:
		return someFailure
	case failures == 1:
		return failure
	case open:
		return anything
	default:
		return exactly(types.NewRecord(m))
	}
}

// operator evaluates an operator that needs all its operands. cedar-go does it,
// once they are known.
func (w *walker) operator(n ast.IsNode) result {
	operands, with := operands(n)
	if with == nil {
		return anything
	}
	values := make([]ast.IsNode, len(operands))
	for i, o := range operands {
		r := w.value(o)
		if r.failed || r.open != 0 {
			return r.unless(anything)
		}
		values[i] = ast.NodeValue{Value: r.value}
	}
	v, err := eval.Eval(with(values), eval.Env{Entities: types.EntityMap{}})
	if err != nil {
		return failure
	}
	return exactly(v)
}
