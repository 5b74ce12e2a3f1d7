package engine

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/cedar-policy/cedar-go"
	cedarast "github.com/cedar-policy/cedar-go/ast"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// render returns an expression as Cedar. cedar-go writes policies only, so
// the expression is cut out of one.
func render(n ast.IsNode) string {
	p := ast.Permit().When(ast.NewNode(n))
	text := string(cedar.NewPolicyFromAST((*cedarast.Policy)(p)).MarshalCedar())
	_, text, _ = strings.Cut(text, "when {")
	return strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(text), "};"))
}

// renderScope returns a part of a scope as Cedar.
func renderScope(variable string, s ast.IsScopeNode) string {
	switch s := s.(type) {
	case ast.ScopeTypeEq:
		return fmt.Sprintf("%s == %s", variable, s.Entity)
	case ast.ScopeTypeIn:
		return fmt.Sprintf("%s in %s", variable, s.Entity)
	case ast.ScopeTypeIs:
		return fmt.Sprintf("%s is %s", variable, s.Type)
	case ast.ScopeTypeIsIn:
		return fmt.Sprintf("%s is %s in %s", variable, s.Type, s.Entity)
	default:
		set, _ := s.(ast.ScopeTypeInSet) // what is left that can fail to fit
		return fmt.Sprintf("%s in [%s]", variable, join(set.Entities))
	}
}

func join(uids []types.EntityUID) string {
	texts := make([]string, len(uids))
	for i, uid := range uids {
		texts[i] = uid.String()
	}
	return strings.Join(texts, ", ")
}

// bounded cuts a text that is too long to be read.
func bounded(text string) string {
	if len(text) <= maxText {
		return text
	}
	cut := maxText
	for !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "…"
}
