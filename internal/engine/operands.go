package engine

import "github.com/cedar-policy/cedar-go/x/exp/ast"

// operands returns the operands of an operator that evaluates all of them and
// looks at nothing else, and a function that makes the operator of others. It
// returns nil for what it does not know.
func operands(n ast.IsNode) ([]ast.IsNode, func([]ast.IsNode) ast.IsNode) {
	binary := func(n ast.BinaryNode, with func(ast.BinaryNode) ast.IsNode) ([]ast.IsNode, func([]ast.IsNode) ast.IsNode) {
		return []ast.IsNode{n.Left, n.Right}, func(o []ast.IsNode) ast.IsNode { return with(ast.BinaryNode{Left: o[0], Right: o[1]}) }
	}
	switch n := n.(type) {
	case ast.NodeTypeEquals:
		return binary(n.BinaryNode, func(b ast.BinaryNode) ast.IsNode { return ast.NodeTypeEquals{BinaryNode: b} })
	case ast.NodeTypeNotEquals:
		return binary(n.BinaryNode, func(b ast.BinaryNode) ast.IsNode { return ast.NodeTypeNotEquals{BinaryNode: b} })
	case ast.NodeTypeLessThan:
		return binary(n.BinaryNode, func(b ast.BinaryNode) ast.IsNode { return ast.NodeTypeLessThan{BinaryNode: b} })
	case ast.NodeTypeLessThanOrEqual:
		return binary(n.BinaryNode, func(b ast.BinaryNode) ast.IsNode { return ast.NodeTypeLessThanOrEqual{BinaryNode: b} })
	case ast.NodeTypeGreaterThan:
		return binary(n.BinaryNode, func(b ast.BinaryNode) ast.IsNode { return ast.NodeTypeGreaterThan{BinaryNode: b} })
	case ast.NodeTypeGreaterThanOrEqual:
		return binary(n.BinaryNode, func(b ast.BinaryNode) ast.IsNode { return ast.NodeTypeGreaterThanOrEqual{BinaryNode: b} })
	case ast.NodeTypeAdd:
		return binary(n.BinaryNode, func(b ast.BinaryNode) ast.IsNode { return ast.NodeTypeAdd{BinaryNode: b} })
	case ast.NodeTypeSub:
		return binary(n.BinaryNode, func(b ast.BinaryNode) ast.IsNode { return ast.NodeTypeSub{BinaryNode: b} })
	case ast.NodeTypeMult:
		return binary(n.BinaryNode, func(b ast.BinaryNode) ast.IsNode { return ast.NodeTypeMult{BinaryNode: b} })
	case ast.NodeTypeContains:
		return binary(n.BinaryNode, func(b ast.BinaryNode) ast.IsNode { return ast.NodeTypeContains{BinaryNode: b} })
	case ast.NodeTypeContainsAll:
		return binary(n.BinaryNode, func(b ast.BinaryNode) ast.IsNode { return ast.NodeTypeContainsAll{BinaryNode: b} })
	case ast.NodeTypeContainsAny:
		return binary(n.BinaryNode, func(b ast.BinaryNode) ast.IsNode { return ast.NodeTypeContainsAny{BinaryNode: b} })
	case ast.NodeTypeNegate:
		return []ast.IsNode{n.Arg}, func(o []ast.IsNode) ast.IsNode { return ast.NodeTypeNegate{UnaryNode: ast.UnaryNode{Arg: o[0]}} }
	case ast.NodeTypeIsEmpty:
		return []ast.IsNode{n.Arg}, func(o []ast.IsNode) ast.IsNode { return ast.NodeTypeIsEmpty{UnaryNode: ast.UnaryNode{Arg: o[0]}} }
	case ast.NodeTypeLike:
		return []ast.IsNode{n.Arg}, func(o []ast.IsNode) ast.IsNode { return ast.NodeTypeLike{Arg: o[0], Value: n.Value} }
	case ast.NodeTypeIs:
		return []ast.IsNode{n.Left}, func(o []ast.IsNode) ast.IsNode { return ast.NodeTypeIs{Left: o[0], EntityType: n.EntityType} }
	case ast.NodeTypeSet:
		return n.Elements, func(o []ast.IsNode) ast.IsNode { return ast.NodeTypeSet{Elements: o} }
	case ast.NodeTypeExtensionCall:
		return n.Args, func(o []ast.IsNode) ast.IsNode { return ast.NodeTypeExtensionCall{Name: n.Name, Args: o} }
	default:
		return nil, nil
	}
}
