package engine

import (
	"cmp"
	"math"

	"github.com/cedar-policy/cedar-go/types"
)

// An outcome is what a policy's condition comes to.
type outcome uint8

const (
	no outcome = iota
	yes
	failed // it cannot be evaluated
)

// run evaluates the condition at an address.
func (s *scratch) run(at int32) outcome {
	code := &s.p.code
	stack := s.stack
	top := -1 // index into stack
	for {
		in := &code.instructions[at]
		at++
		var truth, ok bool
		switch in.op {
		case opEnd:
			return yes
		case opSlow:
			o, _ := s.cedar(code.slow[in.a])
			return o

		case opSlot:
			v := s.slot(in.a)
			if v == nil {
				return failed
			}
			top++
			stack[top] = *v
			continue
		case opConst:
			top++
			stack[top] = code.consts[in.a]
			continue
		case opAttr:
			var v val
			found, _ := s.attribute(&stack[top], code.strings[in.a], &v)
			if !found || s.unspecified(&stack[top]) {
				return failed
			}
			stack[top] = v
			continue
		case opSet:
			vs := make([]types.Value, in.a)
			top -= int(in.a) - 1
			for i := range vs {
				vs[i] = s.boxed(&stack[top+i])
			}
			stack[top] = val{kind: kindSet, v: types.NewSet(vs...)}
			continue
		case opNegate, opToDate, opToTime, opDivide:
			if !unaryNumber(in, &stack[top]) {
				return failed
			}
			continue
		case opAdd, opSub, opMul, opOffset, opSince:
			top--
			if !binaryNumber(in.op, &stack[top], &stack[top+1]) {
				return failed
			}
			continue

		case opJump:
			at = in.a
			continue
		case opIfFalse, opIfTrue:
			if stack[top].kind != kindBool {
				return failed
			}
			if (stack[top].n != 0) == (in.op == opIfTrue) {
				at = in.a
			} else {
				top--
			}
			continue
		case opBranch:
			if stack[top].kind != kindBool {
				return failed
			}
			if stack[top].n == 0 {
				at = in.a
			}
			top--
			continue
		case opUnlessIs:
			e, ok := s.entityOf(&stack[top])
			if !ok {
				return failed
			}
			if e.Type != code.types[in.n] {
				stack[top] = boolVal(false)
				at = in.a
			}
			continue

		case opTruth, opNot:
			truth, ok = stack[top].n != 0, stack[top].kind == kindBool
			top--
		case opEqual:
			truth, ok = s.equal(&stack[top-1], &stack[top]), true
			top -= 2
		case opCompare:
			truth, ok = compare(in.order, &stack[top-1], &stack[top])
			top -= 2
		case opDecimal:
			truth, ok = compareDecimals(in.order, &stack[top-1], &stack[top])
			top -= 2
		case opHas:
			truth, ok = s.has(&stack[top], code.strings[in.a])
			top--
		case opLike:
			truth, ok = like(&stack[top], code.patterns[in.a])
			top--
		case opIs:
			truth, ok = s.is(&stack[top], code.types[in.a])
			top--
		case opIn:
			truth, ok = s.evalIn(&stack[top-1], &stack[top])
			top -= 2
		case opContains:
			truth, ok = s.contains(&stack[top-1], &stack[top])
			top -= 2
		case opContainsAll, opContainsAny:
			truth, ok = s.containsMany(in.op == opContainsAll, &stack[top-1], &stack[top])
			top -= 2
		case opIsEmpty:
			truth, ok = isEmpty(&stack[top])
			top--

		case opSlotIn:
			truth, ok = s.inList(&s.subjects[in.a], code.lists[in.n]), true
		case opSlotCompare: // the commonest
			v := s.slot(in.a)
			if v == nil || v.kind != kindLong {
				return failed
			}
			truth, ok = in.order.holds(cmp.Compare(v.n, in.n)), true
		case opSlotTruth, opSlotEqual, opSlotHas, opSlotLike, opSlotIs, opSlotContains, opConstContains:
			v := s.slot(in.a)
			if v == nil {
				return failed
			}
			truth, ok = s.fused(in, v)
		default:
			return failed
		}

		if !ok {
			return failed
		}
		truth = truth != in.not
		switch in.then {
		case push:
			top++
			stack[top] = boolVal(truth)
		case require:
			if !truth {
				return no
			}
		case exclude:
			if truth {
				return no
			}
		}
	}
}

// fused evaluates an operator on a slot and a constant.
func (s *scratch) fused(in *instruction, v *val) (truth, ok bool) {
	code := &s.p.code
	switch in.op {
	case opSlotTruth:
		return v.n != 0, v.kind == kindBool
	case opSlotEqual:
		return s.equal(v, &code.consts[in.n]), true
	case opSlotHas:
		return s.has(v, code.strings[in.n])
	case opSlotLike:
		return like(v, code.patterns[in.n])
	case opSlotIs:
		return s.is(v, code.types[in.n])
	case opSlotContains:
		return s.contains(v, &code.consts[in.n])
	default: // opConstContains
		k := &code.sets[in.n]
		if v.kind == kindString {
			return k.strings[v.s], true
		}
		return s.setHas(k.set, v), true
	}
}

// compare is Cedar's < and its like on two numbers, datetimes or durations.
func compare(o order, a, b *val) (truth, ok bool) {
	switch a.kind {
	case kindLong, kindDatetime, kindDuration:
		return o.holds(cmp.Compare(a.n, b.n)), a.kind == b.kind
	default:
		return false, false
	}
}

func compareDecimals(o order, a, b *val) (truth, ok bool) {
	if a.kind != kindDecimal || b.kind != kindDecimal {
		return false, false
	}
	return o.holds(a.v.(types.Decimal).Compare(b.v.(types.Decimal))), true
}

func like(v *val, pattern types.Pattern) (truth, ok bool) {
	if v.kind != kindString {
		return false, false
	}
	return pattern.Match(v.s), true
}

func (s *scratch) is(v *val, t types.EntityType) (truth, ok bool) {
	e, ok := s.entityOf(v)
	return e.Type == t, ok
}

func (s *scratch) evalIn(v, of *val) (truth, ok bool) {
	e, ok := s.entityOf(v)
	if !ok {
		return false, false
	}
	if f, ok := s.entityOf(of); ok {
		return s.in(e, f), true
	}
	set, ok := s.setOf(of)
	if !ok {
		return false, false
	}
	return s.inSet(e, set)
}

// inList reports whether a subject is in an entity of a list.
func (s *scratch) inList(sub *subject, list []int32) bool {
	for _, id := range list {
		if sub.marks[id] == s.generation {
			return true
		}
	}
	return false
}

// has reports whether a record or an entity has an attribute.
func (s *scratch) has(v *val, name types.String) (truth, ok bool) {
	var ignored val
	return s.attribute(v, name, &ignored)
}

// unaryNumber replaces a number by the result of an operator on it, unless it
// is not of the operator's type or the result does not exist.
func unaryNumber(in *instruction, v *val) bool {
	switch in.op {
	case opNegate:
		if v.kind != kindLong || v.n == math.MinInt64 {
			return false
		}
		v.n = -v.n
	case opToDate:
		if v.kind != kindDatetime {
			return false
		}
		v.n -= v.n % millisPerDay
	case opToTime:
		if v.kind != kindDatetime {
			return false
		}
		*v = val{kind: kindDuration, n: v.n % millisPerDay}
	default: // opDivide
		if v.kind != kindDuration {
			return false
		}
		*v = longVal(v.n / in.n)
	}
	return true
}

// binaryNumber replaces a by the result of an operator on a and b, unless they
// are not of the operator's types or the result overflows.
func binaryNumber(o op, a, b *val) bool {
	want := [2]kind{kindLong, kindLong}
	result := kindLong
	switch o {
	case opOffset:
		want = [2]kind{kindDatetime, kindDuration}
		result = kindDatetime
	case opSince:
		want = [2]kind{kindDatetime, kindDatetime}
		result = kindDuration
	}
	if a.kind != want[0] || b.kind != want[1] {
		return false
	}
	n, ok := arithmetic(o, a.n, b.n)
	*a = val{kind: result, n: n}
	return ok
}

// arithmetic returns a+b, a-b or a*b, unless it overflows.
func arithmetic(o op, a, b int64) (int64, bool) {
	switch o {
	case opAdd, opOffset:
		n := a + b
		return n, (n > a) == (b > 0)
	case opSub, opSince:
		n := a - b
		return n, (n < a) == (b > 0)
	default: // opMul
		if a == 0 || b == 0 {
			return 0, true
		}
		n := a * b
		// The first test catches the one product whose division overflows too.
		return n, (n < 0) == ((a < 0) != (b < 0)) && n/b == a
	}
}
