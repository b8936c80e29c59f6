package strictyaml

import (
	"errors"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

const (
	// MaxBytes bounds a file. The largest plan has some 200 KiB; the parser needs quadratic time for a
	// mapping with very many keys.
	MaxBytes = 1 << 20
	// maxDepth bounds nesting; the deepest manifest of ours has 8 levels.
	maxDepth = 32
	// maxDocuments bounds the documents of one file; the parser recurses for each.
	maxDocuments = 2000
	// maxColumn bounds where a list item or a key marker may stand on a line. The parser recurses for
	// each "- - - -", so the bound keeps its stack small.
	maxColumn = 200
)

// Kind says what a node is.
type Kind int

// The kinds of nodes.
const (
	Null Kind = iota + 1
	String
	Integer
	Float
	Bool
	Map
	List
)

// String returns the words that messages use.
func (k Kind) String() string {
	switch k {
	case Null:
		return "nothing"
	case String:
		return "text"
	case Integer, Float:
		return "a number"
	case Bool:
		return "true or false"
	case Map:
		return "a mapping"
	case List:
		return "a list"
	default:
		return "unknown"
	}
}

// Node is one value with its place.
type Node struct {
	Kind Kind
	At   Position
	// Text of a scalar, without quotes.
	Text string
	// Entries of a Map, in the order of the file, each key once.
	Entries []Entry
	// Items of a List.
	Items []*Node
}

// Entry is one key with its value.
type Entry struct {
	Key   string
	At    Position
	Value *Node
}

// Get returns the value under a key, or nil.
func (n *Node) Get(key string) *Node {
	for _, e := range n.Entries {
		if e.Key == key {
			return e.Value
		}
	}
	return nil
}

// Parse reads all documents of one file. Empty documents are left out. Faults are added to the
// problems; what could be read is returned all the same, so that later checks find more.
func Parse(file string, data []byte, problems *Problems) []*Node {
	whole := Position{File: file}
	if len(data) > MaxBytes {
		problems.Add(whole, "is larger than %d bytes", MaxBytes)
		return nil
	}
	tokens := lexer.Tokenize(string(data))
	if t := tooDeep(tokens); t != nil {
		problems.Add(position(file, t), "is nested too deeply, or the file has more than %d documents", maxDocuments)
		return nil
	}
	tokens, content := withoutEmptyDocuments(tokens)
	parsed, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		problems.Add(syntaxFault(file, err))
		return nil
	}
	if n := len(parsed.Docs); content && (n == 0 || parsed.Docs[n-1].Body == nil) {
		problems.Add(whole, "could not be read to its end: leave empty documents out")
		return nil
	}
	c := converter{file: file, problems: problems}
	var out []*Node
	for _, doc := range parsed.Docs {
		if doc.Body == nil {
			continue
		}
		if n := c.node(doc.Body, 0); n != nil && n.Kind != Null {
			out = append(out, n)
		}
	}
	return out
}

// withoutEmptyDocuments leaves comments out, and each "---" that only another one follows: goccy/go-yaml
// 1.19.2 silently drops everything after an empty document. content says whether anything stands in the
// last document.
func withoutEmptyDocuments(tokens token.Tokens) (kept token.Tokens, content bool) {
	for _, t := range tokens {
		switch t.Type {
		case token.CommentType:
			continue
		case token.DocumentHeaderType:
			content = false
			if n := len(kept); n > 0 && kept[n-1].Type == token.DocumentHeaderType {
				kept = kept[:n-1]
			}
		case token.DocumentEndType:
			content = false
		default:
			content = true
		}
		kept = append(kept, t)
	}
	return kept, content
}

func syntaxFault(file string, err error) (Position, string, any) {
	var syntax *yaml.SyntaxError
	if errors.As(err, &syntax) && syntax.Token != nil {
		return position(file, syntax.Token), "%s", syntax.Message
	}
	return Position{File: file}, "%v", err
}

// tooDeep returns the first token at which the nesting passes the bounds, before the parser recurses.
func tooDeep(tokens token.Tokens) *token.Token {
	depth, documents := 0, 0
	for _, t := range tokens {
		switch t.Type {
		case token.DocumentHeaderType, token.DocumentEndType:
			if documents++; documents > maxDocuments {
				return t
			}
		case token.MappingStartType, token.SequenceStartType:
			depth++
		case token.MappingEndType, token.SequenceEndType:
			depth--
		case token.SequenceEntryType, token.MappingKeyType:
			if depth == 0 && t.Position.Column > maxColumn {
				return t
			}
		case token.AnchorType, token.TagType:
			// Both are refused later, but the parser recurses for each of a run of them.
			if t.Next != nil && t.Next.Type == t.Type {
				return t
			}
		default:
		}
		if depth > maxDepth {
			return t
		}
	}
	return nil
}

func position(file string, t *token.Token) Position {
	if t == nil || t.Position == nil {
		return Position{File: file}
	}
	return Position{File: file, Line: t.Position.Line, Column: t.Position.Column}
}

type converter struct {
	file     string
	problems *Problems
}

// node converts one value; it returns nil when it recorded a fault instead.
func (c *converter) node(n ast.Node, depth int) *Node {
	at := c.at(n)
	if depth > maxDepth {
		c.problems.Add(at, "is nested too deeply")
		return nil
	}
	switch v := n.(type) {
	case *ast.MappingNode:
		return c.mapping(v.Values, at, depth)
	case *ast.MappingValueNode:
		return c.mapping([]*ast.MappingValueNode{v}, at, depth)
	case *ast.SequenceNode:
		list := &Node{Kind: List, At: at}
		for _, item := range v.Values {
			if x := c.node(item, depth+1); x != nil {
				list.Items = append(list.Items, x)
			}
		}
		return list
	case *ast.AnchorNode, *ast.AliasNode:
		c.problems.Add(at, "anchors and aliases are not supported: write the value where it is needed")
	case *ast.TagNode:
		c.problems.Add(at, "tags such as %s are not supported", v.Start.Value)
	case *ast.DirectiveNode:
		c.problems.Add(at, "directives are not supported")
	case *ast.CommentGroupNode, *ast.CommentNode:
		return &Node{Kind: Null, At: at}
	default:
		if s := scalar(n, at); s != nil {
			return s
		}
		c.problems.Add(at, "%s is not supported here", n.Type())
	}
	return nil
}

func scalar(n ast.Node, at Position) *Node {
	switch v := n.(type) {
	case *ast.NullNode:
		return &Node{Kind: Null, At: at}
	case *ast.StringNode:
		return &Node{Kind: String, At: at, Text: v.Value}
	case *ast.LiteralNode:
		return &Node{Kind: String, At: at, Text: v.Value.Value}
	case *ast.IntegerNode:
		return &Node{Kind: Integer, At: at, Text: v.Token.Value}
	case *ast.FloatNode:
		return &Node{Kind: Float, At: at, Text: v.Token.Value}
	case *ast.BoolNode:
		text := "false"
		if v.Value {
			text = "true"
		}
		return &Node{Kind: Bool, At: at, Text: text}
	default:
		return nil
	}
}

func (c *converter) mapping(values []*ast.MappingValueNode, at Position, depth int) *Node {
	m := &Node{Kind: Map, At: at}
	first := map[string]Position{}
	for _, v := range values {
		key, keyAt, ok := c.key(v)
		if !ok {
			continue
		}
		if before, seen := first[key]; seen {
			c.problems.Add(keyAt, "duplicate key %q, first at line %d", key, before.Line)
			continue
		}
		first[key] = keyAt
		value := c.node(v.Value, depth+1)
		if value == nil {
			continue
		}
		if value.At.Line == 0 {
			value.At = keyAt
		}
		m.Entries = append(m.Entries, Entry{Key: key, At: keyAt, Value: value})
	}
	if len(m.Entries) > 0 {
		m.At = m.Entries[0].At // a block mapping begins at its first key, not at the colon
	}
	return m
}

func (c *converter) key(v *ast.MappingValueNode) (string, Position, bool) {
	if v.Key == nil {
		return "", Position{}, false
	}
	at := position(c.file, v.Key.GetToken())
	if v.Key.IsMergeKey() {
		c.problems.Add(at, "merge keys are not supported")
		return "", at, false
	}
	n, ok := v.Key.(ast.Node)
	if s := scalar(n, at); ok && s != nil && s.Kind != Null {
		return s.Text, at, true
	}
	c.problems.Add(at, "a key must be a plain word")
	return "", at, false
}

func (c *converter) at(n ast.Node) Position {
	if n == nil {
		return Position{File: c.file}
	}
	return position(c.file, n.GetToken())
}
