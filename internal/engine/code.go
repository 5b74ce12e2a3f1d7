package engine

import (
	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
)

// An op is what an instruction does.
type op uint8

const (
	opEnd  op = iota // the policy is satisfied
	opSlow           // cedar-go evaluates the policy: slow[a]

	// Values. They take operands from the stack and push one.
	opSlot   // slot a
	opConst  // constant a
	opAttr   // attribute strings[a]
	opSet    // set of the a topmost
	opNegate // -
	opAdd
	opSub
	opMul
	opOffset // of a datetime by a duration
	opSince  // from a datetime to a datetime
	opToDate
	opToTime
	opDivide // a duration by n milliseconds

	// Jumps.
	opJump     // to a
	opIfFalse  // to a if the top is false, leaving it; else pop it
	opIfTrue   // to a if the top is true, leaving it; else pop it
	opBranch   // pop, and to a if it was false
	opUnlessIs // to a if the top is not of types[n], making it false

	// Truth values. They take operands from the stack; then says what becomes
	// of the result.
	opTruth // the top, which must be a truth value
	opNot
	opEqual
	opCompare
	opHas  // attribute strings[a]
	opLike // patterns[a]
	opIs   // types[a]
	opIn
	opContains
	opContainsAll
	opContainsAny
	opIsEmpty
	opDecimal // a comparison of decimals

	// The commonest of these fused with their operands: slot a and constant n.
	// They save two of three instructions of a usual policy.
	opSlotTruth
	opSlotEqual
	opSlotCompare // with the number n
	opSlotHas     // strings[n]
	opSlotLike    // patterns[n]
	opSlotIs      // types[n]
	opSlotIn      // variable a, lists[n]
	opSlotContains
	opConstContains // sets[n] has slot a
)

// A then says what becomes of a truth value.
type then uint8

const (
	push    then = iota // the stack gets it
	require             // the policy is not satisfied unless it is true
	exclude             // the policy is not satisfied unless it is false
)

// An order is a comparison.
type order uint8

const (
	less order = iota
	lessEqual
	greater
	greaterEqual
)

// holds reports whether the comparison holds between values that are less
// than (-1), equal to (0) or greater than (1) each other.
func (o order) holds(c int) bool {
	switch o {
	case less:
		return c < 0
	case lessEqual:
		return c <= 0
	case greater:
		return c > 0
	default:
		return c >= 0
	}
}

// An instruction is one step of a condition.
type instruction struct {
	op    op
	then  then
	order order
	not   bool // of a truth value: its opposite
	a     int32
	n     int64
}

// A slot is a chain of attributes from a variable, such as
// context.input.amount. Policies that name the same chain share it.
type slot struct {
	parent int32
	name   types.String
}

// A constSet is a set that is known when a policy is compiled.
type constSet struct {
	strings map[types.String]bool
	set     types.Set
}

// A code is the conditions of all policies, and what they refer to.
type code struct {
	instructions []instruction
	slots        []slot
	consts       []val
	sets         []constSet
	strings      []types.String
	patterns     []types.Pattern
	types        []types.EntityType
	lists        [][]int32 // of entity numbers
	slow         []*cedar.PolicySet
	depth        int // of the deepest stack
}
