// Command nancheck is a vet tool that finds tests which NaN passes:
//
//	if d > 1e-4 {
//		t.Errorf(…)
//	}
//
// With d not a number the comparison is false and the test reports nothing;
// `if !(d <= 1e-4)`, or a comparison of internal/golden, does. It runs as
// go vet -vettool=… (see make lint).
package main

import (
	"go/ast"
	"go/token"
	"go/types"
	"strings"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/analysis/unitchecker"
)

func main() { unitchecker.Main(analyzer) }

var analyzer = &analysis.Analyzer{
	Name: "nancheck",
	Doc:  "find comparisons of floating-point numbers in tests that fail only if they are true, which they never are of NaN",
	Run: func(pass *analysis.Pass) (any, error) {
		for _, file := range pass.Files {
			if !strings.HasSuffix(pass.Fset.Position(file.Pos()).Filename, "_test.go") {
				continue
			}
			ast.Inspect(file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.IfStmt:
					if fails(n.Body) {
						check(pass, n.Cond)
					}
				case *ast.CaseClause:
					if fails(&ast.BlockStmt{List: n.Body}) {
						for _, e := range n.List {
							check(pass, e)
						}
					}
				}
				return true
			})
		}
		return nil, nil
	},
}

// fails reports whether a statement of the block itself ends or fails the test.
func fails(b *ast.BlockStmt) bool {
	for _, s := range b.List {
		e, ok := s.(*ast.ExprStmt)
		if !ok {
			continue
		}
		if call, ok := e.X.(*ast.CallExpr); ok {
			if f, ok := call.Fun.(*ast.SelectorExpr); ok {
				switch f.Sel.Name {
				case "Error", "Errorf", "Fatal", "Fatalf":
					return true
				}
			}
		}
	}
	return false
}

// check reports the ordered comparisons of the condition that make it true. What
// stands under a negation is right.
func check(pass *analysis.Pass, e ast.Expr) {
	switch e := e.(type) {
	case *ast.ParenExpr:
		check(pass, e.X)
	case *ast.BinaryExpr:
		switch e.Op {
		case token.LAND, token.LOR:
			check(pass, e.X)
			check(pass, e.Y)
		case token.LSS, token.LEQ, token.GTR, token.GEQ:
			if isFloat(pass.TypesInfo.TypeOf(e.X)) {
				pass.Reportf(e.Pos(), "NaN passes this test: write !(a %s b)", map[token.Token]string{
					token.LSS: ">=", token.LEQ: ">", token.GTR: "<=", token.GEQ: "<",
				}[e.Op])
			}
		}
	}
}

func isFloat(t types.Type) bool {
	b, ok := t.Underlying().(*types.Basic)
	return ok && b.Info()&types.IsFloat != 0
}
