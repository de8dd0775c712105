package main

import (
	"strings"
	"testing"
)

func TestStatements(t *testing.T) {
	for _, statement := range []string{
		"x = 1",
		"x = [\n  6,\n]",
		"f(1,\n\n  2)",
		"s = '''one\n\ntwo'''",
		"s = \"it's # no comment: \"",
		"if x:\n  pass\n",
		"if x: pass\n",
		"def f(n):\n  # a comment\n\n  return n\n",
		"for n in x:\n  print(n)\nelse:\n  print('end')\n",
		"@cache\ndef f():\n  return 1\n",
		"class A:\n  def f(self):\n    return {1: 2}\n",
		"x = 1 + \\\n  2",
		"match x:\n  case 1:\n    pass\n",
		"async def f():\n  await g()\n",
		"with open('x') as f: # why:\n  pass\n",
		"x = {'a': 1}",
		"y: int = 3",
		"%%time\nx = 1\n",
		"%timeit x",
		"!ls | cat",
		"x = 'broken",
		"x = )",
		"lambda: 1",
	} {
		var typed statements
		lines := strings.Split(statement, "\n")
		for index, line := range lines {
			code, complete := typed.add(line)
			if complete != (index == len(lines)-1) {
				t.Errorf("%q is complete: %v, after line %d", statement, complete, index+1)
				break
			}
			if complete && code != statement {
				t.Errorf("%q became %q", statement, code)
			}
		}
	}
	var typed statements
	if code, complete := typed.add("  "); complete || !typed.isEmpty() {
		t.Errorf("a blank line is no statement: %q", code)
	}
}

// Each line is read once: otherwise this would take minutes.
func TestLongStatementsOfAFile(t *testing.T) {
	for first, line := range map[string]string{"x = {": "  'k': [1, \"v\"],", "class A:": "  def f(self): return (\n  1)"} {
		end := map[string]string{"x = {": "}", "class A:": ""}[first]
		code := first + strings.Repeat("\n"+line, 50_000) + "\n" + end
		typed := statements{fromFile: true}
		for index, line := range strings.Split(code, "\n") {
			if early, isBefore := typed.takeBefore(line); isBefore {
				t.Fatalf("a statement ends before line %d: %q", index+1, early[:20])
			}
			if found, isComplete := typed.add(line); isComplete && found != code {
				t.Fatalf("a statement ends with line %d", index+1)
			}
		}
		if !typed.isEmpty() && typed.take() != code {
			t.Error(first)
		}
	}
}
