package coaz

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/env"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/interpreter"
)

// Bounds on expressions. Whoever writes one is not trusted, so each bounds what
// it can make this process do; all are counted, none is a time.
const (
	// maxSource bounds the characters of an expression, and maxNesting and
	// maxExprNodes its tree.
	maxSource    = 4 << 10
	maxNesting   = 64
	maxExprNodes = 2000
	// maxCost bounds what one expression does, and maxTotalCost all expressions
	// of a mapping; a comparison or a step of a loop costs about 1. The mappings
	// of the binding cost less than 10.
	maxCost      = 50_000
	maxTotalCost = 200_000
	// maxElements bounds the lists and maps that an expression handles, with
	// everything in them. CEL charges for comparing two of them when it is done,
	// and [x, x] of [x, x] … has few steps and no end.
	maxElements = 20_000
	// maxPattern and maxProgram bound a regular expression, and maxMatch the
	// product of its program and the text.
	maxPattern = 1 << 10
	maxProgram = 250
	maxMatch   = 4 << 20
	// checkEvery is after how many steps of a loop the context is looked at.
	checkEvery = 64
)

var errCost = errors.New("it costs more than an expression may")

// An expression is a compiled CEL expression. It is safe for concurrent use.
type expression struct {
	source  string
	program cel.Program
	// claim is the claim that the expression is, if it is nothing but that.
	claim string
}

// environment is the language of expressions: standard CEL with optional
// values, over params and token, with two differences. Time zones other than
// UTC are not there, because the names of the others mean what the host's files
// say. And matches is our own, because the standard one is charged when it is
// done.
var environment = sync.OnceValues(func() (*cel.Env, error) {
	claims := cel.MapType(cel.StringType, cel.DynType)
	return cel.NewCustomEnv(
		cel.StdLib(cel.StdLibSubset(&env.LibrarySubset{ExcludeFunctions: excluded()})),
		cel.OptionalTypes(),
		cel.Variable("params", claims),
		cel.Variable("token", claims),
		cel.Function(overloads.Matches,
			cel.Overload(overloads.Matches, []*cel.Type{cel.StringType, cel.StringType}, cel.BoolType),
			cel.MemberOverload(overloads.MatchesString, []*cel.Type{cel.StringType, cel.StringType}, cel.BoolType),
			cel.SingletonBinaryBinding(matches)),
		cel.CrossTypeNumericComparisons(true),
		cel.DefaultUTCTimeZone(true),
		cel.ParserExpressionSizeLimit(maxSource),
		cel.ParserRecursionLimit(maxNesting),
		cel.ExpressionNodeLimit(maxExprNodes),
	)
})

// excluded is what standard CEL has and we have not.
func excluded() []*env.Function {
	list := []*env.Function{{Name: overloads.Matches}}
	for function, overload := range map[string]string{
		overloads.TimeGetFullYear:     overloads.TimestampToYearWithTz,
		overloads.TimeGetMonth:        overloads.TimestampToMonthWithTz,
		overloads.TimeGetDayOfYear:    overloads.TimestampToDayOfYearWithTz,
		overloads.TimeGetDayOfMonth:   overloads.TimestampToDayOfMonthZeroBasedWithTz,
		overloads.TimeGetDate:         overloads.TimestampToDayOfMonthOneBasedWithTz,
		overloads.TimeGetDayOfWeek:    overloads.TimestampToDayOfWeekWithTz,
		overloads.TimeGetHours:        overloads.TimestampToHoursWithTz,
		overloads.TimeGetMinutes:      overloads.TimestampToMinutesWithTz,
		overloads.TimeGetSeconds:      overloads.TimestampToSecondsWithTz,
		overloads.TimeGetMilliseconds: overloads.TimestampToMillisecondsWithTz,
	} {
		list = append(list, &env.Function{Name: function, Overloads: []*env.Overload{{ID: overload}}})
	}
	return list
}

// compileExpression checks an expression, without its $.
func compileExpression(source string) (*expression, error) {
	e, err := environment()
	if err != nil {
		return nil, err
	}
	checked, issues := e.Compile(source)
	if issues.Err() != nil {
		first := issues.Errors()[0]
		return nil, errors.New(printable(first.Message))
	}
	program, err := e.Program(checked,
		cel.CostLimit(maxCost),
		cel.CostTracking(lengths{}),
		cel.MemoryTracking(types.MemoryTrackerSizeCalculator(types.NewSizeCalculator(
			types.SizeCalculatorMaxDepth(2*maxDepth+8), types.SizeCalculatorMaxTraversal(maxElements), types.SizeCalculatorStringUnitLength(1<<10),
		))),
		cel.MemoryLimit(maxElements),
		cel.InterruptCheckFrequency(checkEvery),
	)
	if err != nil {
		return nil, errors.New("it cannot be planned: " + printable(err.Error()))
	}
	return &expression{source: source, program: program, claim: claimOf(checked.NativeRep().Expr())}, nil
}

// claimOf is the name of the claim if an expression is token.name,
// token.?name or token["name"].
func claimOf(e ast.Expr) string {
	switch e.Kind() {
	case ast.SelectKind:
		s := e.AsSelect()
		if !s.IsTestOnly() && isToken(s.Operand()) {
			return s.FieldName()
		}
	case ast.CallKind:
		c := e.AsCall()
		switch c.FunctionName() {
		case operators.Index, operators.OptIndex, operators.OptSelect:
		default:
			return ""
		}
		if len(c.Args()) == 2 && isToken(c.Args()[0]) && c.Args()[1].Kind() == ast.LiteralKind {
			name, _ := c.Args()[1].AsLiteral().(types.String)
			return string(name)
		}
	}
	return ""
}

func isToken(e ast.Expr) bool { return e.Kind() == ast.IdentKind && e.AsIdent() == "token" }

// eval evaluates the expression. The error is fit for a message: it quotes the
// expression at most.
func (e *expression) eval(ctx context.Context, params, token ref.Val) (v ref.Val, cost uint64, err error) {
	v, details, err := e.program.ContextEval(ctx, map[string]any{"params": params, "token": token})
	if c := details.ActualCost(); c != nil {
		cost = *c
	}
	if err != nil {
		return nil, cost, e.explain(err)
	}
	return v, cost, nil
}

// explain says why an evaluation failed, without what CEL quotes of the
// message and the token.
func (e *expression) explain(err error) error {
	var cancelled interpreter.EvalCancelledError
	if errors.As(err, &cancelled) {
		if cancelled.Cause == interpreter.CostLimitExceeded || cancelled.Cause == interpreter.MemoryLimitExceeded {
			return errCost
		}
		return errors.New("it was cancelled")
	}
	text := err.Error()
	if key, ok := strings.CutPrefix(text, "no such key: "); ok {
		if strings.Contains(e.source, key) { // a name of the expression, not a value
			return errors.New("no such key '" + printable(key) + "'")
		}
		return errors.New("no such key")
	}
	for _, known := range []string{"no such overload", "division by zero", "modulus by zero", "index out of bounds", "overflow", errMatch.Error()} {
		if strings.Contains(text, known) {
			return errors.New(known)
		}
	}
	return errors.New("it cannot be evaluated")
}

var errMatch = errors.New("the regular expression is invalid or too large, or the text is")

// matches is the function of CEL of that name.
func matches(text, pattern ref.Val) ref.Val {
	s, ok := text.(types.String)
	p, isString := pattern.(types.String)
	if !ok || !isString {
		return types.NoSuchOverloadErr()
	}
	if len(p) > maxPattern {
		return types.WrapErr(errMatch)
	}
	size, err := types.RegexProgramSize(string(p))
	if err != nil || size > maxProgram || size*len(s) > maxMatch {
		return types.WrapErr(errMatch)
	}
	re, err := regexp.Compile(string(p))
	if err != nil {
		return types.WrapErr(errMatch)
	}
	return types.Bool(re.MatchString(string(s)))
}

// lengths charges for the strings that the functions read which CEL takes to
// be free: size and the conversions.
type lengths struct{}

func (lengths) CallCost(function, _ string, args []ref.Val, _ ref.Val) *uint64 {
	switch function {
	case overloads.Size, overloads.TypeConvertBytes, overloads.TypeConvertString, overloads.TypeConvertTimestamp,
		overloads.TypeConvertDuration, overloads.TypeConvertInt, overloads.TypeConvertUint, overloads.TypeConvertDouble, overloads.TypeConvertBool:
	default:
		return nil // charged as CEL does
	}
	cost := uint64(1)
	for _, a := range args {
		switch a := a.(type) {
		case types.String:
			cost += uint64(len(a)) / 10
		case types.Bytes:
			cost += uint64(len(a)) / 10
		}
	}
	return &cost
}
