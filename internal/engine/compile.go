package engine

import (
	"slices"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// A compiler turns conditions into code.
type compiler struct {
	code
	names    *names
	bySlot   map[slot]int32
	byString map[types.String]int32
	// Policies share constants and patterns. At 100,000 policies, a third of the
	// time in conditions went to fetch copies of the same few patterns.
	byConst   map[types.Value]int32
	byPattern map[string]int64
	depth     int // of the stack at this point
	// unknown is set when a condition uses what this compiler does not know.
	unknown bool
}

func newCompiler(n *names) *compiler {
	c := &compiler{names: n, bySlot: map[slot]int32{}, byString: map[types.String]int32{},
		byConst: map[types.Value]int32{}, byPattern: map[string]int64{}}
	for i, name := range [variables]types.String{"principal", "action", "resource", "context"} {
		v := slot{parent: -1, name: name}
		c.slots = append(c.slots, v)
		c.bySlot[v] = int32(i)
	}
	return c
}

// policy adds the conditions of a policy and returns where they begin.
//
// Conditions and the conjuncts in them are tested one after another, as in
// Cedar: a test that comes after a false one must not be evaluated, because it
// could fail.
func (c *compiler) policy(p *ast.Policy) int32 {
	start := len(c.instructions)
	c.unknown = false
	for _, condition := range p.Conditions {
		if condition.Condition == ast.ConditionWhen {
			c.test(condition.Body, require)
		} else {
			c.test(condition.Body, exclude)
		}
	}
	if c.unknown {
		c.instructions = c.instructions[:start]
		c.slow = append(c.slow, cedarPolicy(p))
		c.emit(0, instruction{op: opSlow, a: int32(len(c.slow) - 1)})
		return int32(start)
	}
	c.emit(0, instruction{op: opEnd})
	return int32(start)
}

// emit adds an instruction that makes the stack grow by the given number.
func (c *compiler) emit(growth int, in instruction) int {
	c.depth += growth
	c.code.depth = max(c.code.depth, c.depth)
	c.instructions = append(c.instructions, in)
	return len(c.instructions) - 1
}

// land makes the jumps go to the next instruction.
func (c *compiler) land(jumps ...int) {
	for _, j := range jumps {
		c.instructions[j].a = int32(len(c.instructions))
	}
}

// test compiles an expression whose truth decides the policy.
func (c *compiler) test(n ast.IsNode, t then) {
	switch n := n.(type) {
	case ast.NodeTypeAnd:
		if t == require {
			c.test(n.Left, t)
			c.test(n.Right, t)
			return
		}
	case ast.NodeTypeOr:
		if t == exclude {
			c.test(n.Left, t)
			c.test(n.Right, t)
			return
		}
	case ast.NodeTypeNot:
		if t == require {
			c.test(n.Arg, exclude)
		} else {
			c.test(n.Arg, require)
		}
		return
	}
	start := len(c.instructions)
	c.value(n)
	last := &c.instructions[len(c.instructions)-1]
	switch {
	case len(c.instructions)-start == 1 && last.op == opSlot:
		*last = instruction{op: opSlotTruth, a: last.a, then: t}
	case last.op >= opTruth && !endsInJumpTarget(n):
		last.then = t
	default:
		c.emit(0, instruction{op: opTruth, then: t})
	}
	c.depth--
}

// endsInJumpTarget reports whether the code of n jumps to its own end, so that
// its last instruction does not see every result.
func endsInJumpTarget(n ast.IsNode) bool {
	switch n.(type) {
	case ast.NodeTypeAnd, ast.NodeTypeOr, ast.NodeTypeIfThenElse, ast.NodeTypeIsIn:
		return true
	default:
		return false
	}
}

// value compiles an expression that pushes its value.
func (c *compiler) value(n ast.IsNode) {
	if v, ok := constant(n); ok {
		c.emit(1, instruction{op: opConst, a: c.constant(v)})
		return
	}
	switch n := n.(type) {
	case ast.NodeTypeVariable:
		c.emit(1, instruction{op: opSlot, a: c.bySlot[slot{parent: -1, name: n.Name}]})
	case ast.NodeTypeAccess:
		c.access(n)
	case ast.NodeTypeHas:
		c.fuse(n.Arg, opHas, opSlotHas, int64(c.string(n.Value)))
	case ast.NodeTypeLike:
		c.fuse(n.Arg, opLike, opSlotLike, c.pattern(n.Value))
	case ast.NodeTypeIs:
		c.fuse(n.Left, opIs, opSlotIs, c.entityType(n.EntityType))
	case ast.NodeTypeIsIn:
		c.value(n.Left)
		jump := c.emit(0, instruction{op: opUnlessIs, n: c.entityType(n.EntityType)})
		c.value(n.Entity)
		c.emit(-1, instruction{op: opIn})
		c.land(jump)
	case ast.NodeTypeAnd:
		c.shortCircuit(n.BinaryNode, opIfFalse)
	case ast.NodeTypeOr:
		c.shortCircuit(n.BinaryNode, opIfTrue)
	case ast.NodeTypeIfThenElse:
		c.ifThenElse(n)
	case ast.NodeTypeSet:
		for _, e := range n.Elements {
			c.value(e)
		}
		c.emit(1-len(n.Elements), instruction{op: opSet, a: int32(len(n.Elements))})
	case ast.NodeTypeExtensionCall:
		c.call(n)
	default:
		c.operator(n)
	}
}

// operator compiles an operator that evaluates all its operands.
func (c *compiler) operator(n ast.IsNode) {
	switch n := n.(type) {
	case ast.NodeTypeNot:
		c.unary(n.Arg, instruction{op: opNot, not: true})
	case ast.NodeTypeNegate:
		c.unary(n.Arg, instruction{op: opNegate})
	case ast.NodeTypeIsEmpty:
		c.unary(n.Arg, instruction{op: opIsEmpty})
	case ast.NodeTypeEquals:
		c.equal(n.BinaryNode, false)
	case ast.NodeTypeNotEquals:
		c.equal(n.BinaryNode, true)
	case ast.NodeTypeLessThan:
		c.compare(n.BinaryNode, less)
	case ast.NodeTypeLessThanOrEqual:
		c.compare(n.BinaryNode, lessEqual)
	case ast.NodeTypeGreaterThan:
		c.compare(n.BinaryNode, greater)
	case ast.NodeTypeGreaterThanOrEqual:
		c.compare(n.BinaryNode, greaterEqual)
	case ast.NodeTypeAdd:
		c.binary(n.Left, n.Right, instruction{op: opAdd})
	case ast.NodeTypeSub:
		c.binary(n.Left, n.Right, instruction{op: opSub})
	case ast.NodeTypeMult:
		c.binary(n.Left, n.Right, instruction{op: opMul})
	case ast.NodeTypeIn:
		c.in(n)
	case ast.NodeTypeContains:
		c.contains(n)
	case ast.NodeTypeContainsAll:
		c.binary(n.Left, n.Right, instruction{op: opContainsAll})
	case ast.NodeTypeContainsAny:
		c.binary(n.Left, n.Right, instruction{op: opContainsAny})
	default:
		// Tags and record literals, and whatever a later Cedar brings.
		c.giveUp()
	}
}

// giveUp leaves the policy to cedar-go. The instruction stands in for a value
// until the policy's code is thrown away.
func (c *compiler) giveUp() {
	c.unknown = true
	c.emit(1, instruction{op: opSlow})
}

func (c *compiler) unary(arg ast.IsNode, in instruction) {
	c.value(arg)
	c.emit(0, in)
}

func (c *compiler) binary(left, right ast.IsNode, in instruction) {
	c.value(left)
	c.value(right)
	c.emit(-1, in)
}

// fuse compiles an operator on arg and something known: fused with the slot,
// if arg is one.
func (c *compiler) fuse(arg ast.IsNode, plain, fused op, n int64) {
	start := len(c.instructions)
	c.value(arg)
	if s, ok := c.single(start, opSlot); ok {
		c.instructions = c.instructions[:start]
		c.emit(0, instruction{op: fused, a: s, n: n})
		return
	}
	c.emit(0, instruction{op: plain, a: int32(n)})
}

// single returns the operand of the instruction at start if it is of the kind
// and the last.
func (c *compiler) single(start int, o op) (int32, bool) {
	if len(c.instructions) != start+1 || c.instructions[start].op != o {
		return 0, false
	}
	return c.instructions[start].a, true
}

// pair returns the operands of the instructions at start if they are of the
// kinds and the last.
func (c *compiler) pair(start int, first, second op) (a, b int32, ok bool) {
	if len(c.instructions) != start+2 || c.instructions[start].op != first || c.instructions[start+1].op != second {
		return 0, 0, false
	}
	return c.instructions[start].a, c.instructions[start+1].a, true
}

// replace puts one instruction in the place of two operands.
func (c *compiler) replace(start int, in instruction) {
	c.instructions = c.instructions[:start]
	c.emit(-1, in)
}

// access compiles an attribute access: as a slot, if it is a chain from a
// variable.
func (c *compiler) access(n ast.NodeTypeAccess) {
	start := len(c.instructions)
	c.value(n.Arg)
	parent, ok := c.single(start, opSlot)
	if !ok {
		c.emit(0, instruction{op: opAttr, a: c.string(n.Value)})
		return
	}
	def := slot{parent: parent, name: n.Value}
	id, ok := c.bySlot[def]
	if !ok {
		id = int32(len(c.slots))
		c.slots = append(c.slots, def)
		c.bySlot[def] = id
	}
	c.instructions[start].a = id
}

func (c *compiler) shortCircuit(n ast.BinaryNode, jumpOp op) {
	c.value(n.Left)
	jump := c.emit(-1, instruction{op: jumpOp})
	c.value(n.Right)
	c.emit(0, instruction{op: opTruth})
	c.land(jump)
}

func (c *compiler) ifThenElse(n ast.NodeTypeIfThenElse) {
	c.value(n.If)
	toElse := c.emit(-1, instruction{op: opBranch})
	c.value(n.Then)
	toEnd := c.emit(-1, instruction{op: opJump})
	c.land(toElse)
	c.value(n.Else)
	c.land(toEnd)
}

func (c *compiler) equal(n ast.BinaryNode, not bool) {
	start := len(c.instructions)
	c.value(n.Left)
	c.value(n.Right)
	if a, k, ok := c.pair(start, opSlot, opConst); ok {
		c.replace(start, instruction{op: opSlotEqual, not: not, a: a, n: int64(k)})
		return
	}
	c.emit(-1, instruction{op: opEqual, not: not})
}

func (c *compiler) compare(n ast.BinaryNode, o order) {
	start := len(c.instructions)
	c.value(n.Left)
	c.value(n.Right)
	if a, k, ok := c.pair(start, opSlot, opConst); ok && c.consts[k].kind == kindLong {
		c.replace(start, instruction{op: opSlotCompare, order: o, a: a, n: c.consts[k].n})
		return
	}
	c.emit(-1, instruction{op: opCompare, order: o})
}

func (c *compiler) in(n ast.NodeTypeIn) {
	start := len(c.instructions)
	c.value(n.Left)
	c.value(n.Right)
	a, k, ok := c.pair(start, opSlot, opConst)
	if ok && a < contextVar {
		if list, ok := c.entityList(c.consts[k]); ok {
			c.lists = append(c.lists, list)
			c.replace(start, instruction{op: opSlotIn, a: a, n: int64(len(c.lists) - 1)})
			return
		}
	}
	c.emit(-1, instruction{op: opIn})
}

// entityList returns the numbers of an entity or of a set of entities.
func (c *compiler) entityList(v val) ([]int32, bool) {
	if v.kind == kindEntity {
		return []int32{c.names.entity(v.v.(types.EntityUID))}, true
	}
	if v.kind != kindSet {
		return nil, false
	}
	var list []int32
	for e := range v.v.(types.Set).All() {
		uid, ok := e.(types.EntityUID)
		if !ok {
			return nil, false
		}
		list = append(list, c.names.entity(uid))
	}
	slices.Sort(list)
	return list, true
}

func (c *compiler) contains(n ast.NodeTypeContains) {
	start := len(c.instructions)
	c.value(n.Left)
	c.value(n.Right)
	if a, k, ok := c.pair(start, opSlot, opConst); ok {
		c.replace(start, instruction{op: opSlotContains, a: a, n: int64(k)})
		return
	}
	if k, a, ok := c.pair(start, opConst, opSlot); ok && c.consts[k].kind == kindSet {
		c.sets = append(c.sets, newConstSet(c.consts[k].v.(types.Set)))
		c.replace(start, instruction{op: opConstContains, a: a, n: int64(len(c.sets) - 1)})
		return
	}
	c.emit(-1, instruction{op: opContains})
}

func newConstSet(set types.Set) constSet {
	k := constSet{strings: map[types.String]bool{}, set: set}
	for e := range set.All() {
		if s, ok := e.(types.String); ok {
			k.strings[s] = true
		}
	}
	return k
}

const millisPerDay = 24 * 60 * 60 * 1000

// call compiles the extension functions that have code of their own. The
// others, and any with the wrong number of arguments, are left to cedar-go.
func (c *compiler) call(n ast.NodeTypeExtensionCall) {
	in, args := method(n.Name)
	if args == 0 || args != len(n.Args) {
		c.giveUp()
		return
	}
	for _, a := range n.Args {
		c.value(a)
	}
	c.emit(1-len(n.Args), in)
}

// method returns the instruction of an extension function and the number of
// its arguments, or 0.
func method(name types.Path) (in instruction, args int) {
	switch name {
	case "lessThan":
		return instruction{op: opDecimal, order: less}, 2
	case "lessThanOrEqual":
		return instruction{op: opDecimal, order: lessEqual}, 2
	case "greaterThan":
		return instruction{op: opDecimal, order: greater}, 2
	case "greaterThanOrEqual":
		return instruction{op: opDecimal, order: greaterEqual}, 2
	case "offset":
		return instruction{op: opOffset}, 2
	case "durationSince":
		return instruction{op: opSince}, 2
	case "toDate":
		return instruction{op: opToDate}, 1
	case "toTime":
		return instruction{op: opToTime}, 1
	case "toMilliseconds":
		return instruction{op: opDivide, n: 1}, 1
	case "toSeconds":
		return instruction{op: opDivide, n: 1000}, 1
	case "toMinutes":
		return instruction{op: opDivide, n: 60 * 1000}, 1
	case "toHours":
		return instruction{op: opDivide, n: 60 * 60 * 1000}, 1
	case "toDays":
		return instruction{op: opDivide, n: millisPerDay}, 1
	default:
		return instruction{}, 0
	}
}

// constant returns the value of an expression that is a literal, a set of
// literals, or the value of an extension type written as a literal.
func constant(n ast.IsNode) (types.Value, bool) {
	switch n := n.(type) {
	case ast.NodeValue:
		return n.Value, true
	case ast.NodeTypeSet:
		vs := make([]types.Value, len(n.Elements))
		for i, e := range n.Elements {
			v, ok := constant(e)
			if !ok {
				return nil, false
			}
			vs[i] = v
		}
		return types.NewSet(vs...), true
	case ast.NodeTypeExtensionCall:
		if len(n.Args) != 1 {
			return nil, false
		}
		text, ok := constant(n.Args[0])
		s, isString := text.(types.String)
		if !ok || !isString {
			return nil, false
		}
		return construct(n.Name, string(s))
	default:
		return nil, false
	}
}

// construct returns a value of an extension type, unless the text is not one:
// then evaluating it is an error, which cedar-go is left to report.
func construct(function types.Path, text string) (types.Value, bool) {
	var v types.Value
	var err error
	switch function {
	case "decimal":
		v, err = types.ParseDecimal(text)
	case "datetime":
		v, err = types.ParseDatetime(text)
	case "duration":
		v, err = types.ParseDuration(text)
	case "ip":
		v, err = types.ParseIPAddr(text)
	default:
		return nil, false
	}
	return v, err == nil
}

func (c *compiler) constant(v types.Value) int32 {
	switch v.(type) {
	case types.String, types.EntityUID, types.Boolean, types.Long:
	default: // sets and records cannot be keys; the others are rare
		c.consts = append(c.consts, valueOf(v))
		return int32(len(c.consts) - 1)
	}
	id, ok := c.byConst[v]
	if !ok {
		id = int32(len(c.consts))
		c.consts = append(c.consts, valueOf(v))
		c.byConst[v] = id
	}
	return id
}

func (c *compiler) pattern(p types.Pattern) int64 {
	text := string(p.MarshalCedar())
	id, ok := c.byPattern[text]
	if !ok {
		id = int64(len(c.patterns))
		c.patterns = append(c.patterns, p)
		c.byPattern[text] = id
	}
	return id
}

func (c *compiler) string(s types.String) int32 {
	id, ok := c.byString[s]
	if !ok {
		id = int32(len(c.strings))
		c.strings = append(c.strings, s)
		c.byString[s] = id
	}
	return id
}

func (c *compiler) entityType(t types.EntityType) int64 {
	id := c.names.typ(t)
	for int(id) >= len(c.types) {
		c.types = append(c.types, "")
	}
	c.types[id] = t
	return int64(id)
}
