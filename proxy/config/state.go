package config

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	stateFile  = "last-good.json"
	stateMagic = "sandwich-mesh.io last good v1 sha256:"
	// maxState is how much of a state file is read. With defaults written out a
	// document is larger than it was.
	maxState = 8 * MaxBytes
)

// State keeps the document in force over a restart, in a directory of its own.
// Without it an object that is bad at start fails closed.
//
// The file is one line with the hash of what follows: the document as JSON, and
// the objects that it held and that were not in force. Without these a restart
// with an unreadable document would open what they had closed. The file is
// replaced in one step, so it is whole or it is the one before; a file that its
// hash does not fit is ignored.
type State struct {
	dir  string
	last [sha256.Size]byte // of what the file holds, as far as this process knows
}

// kept is what the file holds.
type kept struct {
	Document json.RawMessage `json:"document"`
	Broken   []Broken        `json:"broken,omitempty"`
}

// NewState returns the state in dir, which Save makes if need be.
func NewState(dir string) *State { return &State{dir: dir} }

// Load returns the document that was saved, the prev of the first Settle; nil
// if there is none. A problem says why what is there was ignored.
func (s *State) Load() (*Config, []Problem) {
	name := filepath.Join(s.dir, stateFile)
	f, err := readFile(name, maxState)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, []Problem{s.ignored(name, err.Error())}
	}
	end := bytes.IndexByte(f.Data, '\n') + 1
	body := f.Data[end:]
	if string(f.Data[:end]) != stateHead(body) {
		return nil, []Problem{s.ignored(name, "it is torn or was changed by hand")}
	}
	var k kept
	if err := json.Unmarshal(body, &k); err != nil {
		return nil, []Problem{s.ignored(name, err.Error())}
	}
	c, problems := decode([]File{{Name: name, Data: k.Document}}, maxState)
	if c == nil {
		return nil, []Problem{s.ignored(name, problems[len(problems)-1].Message)}
	}
	var out []Problem
	if n := len(c.Broken); n > 0 {
		out = []Problem{s.ignored(name, fmt.Sprintf("%d of its objects are not understood by this version, the first because: %s", n, problems[0].Message))}
	}
	for _, b := range k.Broken {
		b.Role = min(b.Role, RolePolicy) // a later version may know others
		c.Broken = append(c.Broken, b)
	}
	s.last = sha256.Sum256(body)
	return c, out
}

func (s *State) ignored(name, why string) Problem {
	return Problem{
		Code: CodeState, Severity: Warning, File: name, Line: 1, Column: 1, Object: ID{Kind: DocumentKind},
		Message: "the last good document, or part of it, is ignored: " + why,
		Fix:     "nothing: it is written anew when a document is accepted",
	}
}

// Save writes what is in force, as Settle has returned it. It does nothing if
// that is what the file holds.
func (s *State) Save(c *Config) error {
	doc, err := EncodeJSON(c)
	if err != nil {
		return err
	}
	good := make(map[ID]bool)
	for _, n := range c.Objects() {
		good[n.ID] = true
	}
	k := kept{Document: doc}
	for i := range c.Broken {
		if b := &c.Broken[i]; !good[b.ID] { // what kept its last good version is whole again
			k.Broken = append(k.Broken, *b)
		}
	}
	body, err := json.Marshal(k)
	if err != nil {
		return fmt.Errorf("save last good document: %w", err)
	}
	sum := sha256.Sum256(body)
	if sum == s.last {
		return nil
	}
	if len(body) > maxState-256 {
		return fmt.Errorf("save last good document: %d bytes are more than %d", len(body), maxState)
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("save last good document: %w", err)
	}
	if err := replaceFile(filepath.Join(s.dir, stateFile), append([]byte(stateHead(body)), body...)); err != nil {
		return fmt.Errorf("save last good document: %w", err)
	}
	s.last = sum
	return nil
}

// stateHead is the first line of a file that holds body.
func stateHead(body []byte) string {
	sum := sha256.Sum256(body)
	return stateMagic + hex.EncodeToString(sum[:]) + "\n"
}

// replaceFile puts data in place of the file in one step that a crash or a
// loss of power cannot tear.
func replaceFile(name string, data []byte) error {
	temp := name + ".new"
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp, name); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
