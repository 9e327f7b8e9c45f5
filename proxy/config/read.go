package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// ReadFiles reads what belongs to the document at path: one file of any name,
// or of a directory every *.yaml, *.yml and *.json that does not begin with a
// dot, by name. Directories inside it are not read.
//
// Names are as they were found: path, or path joined with a file's name. The
// error is about the path as a whole; a caller that watches tries again.
func ReadFiles(path string) ([]File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		f, err := readFile(path, MaxBytes)
		if err != nil {
			return nil, err
		}
		return []File{f}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var out []File
	left := MaxBytes
	volume := newVolume(path)
	for _, e := range entries {
		if !isDocument(e.Name()) {
			continue
		}
		name := filepath.Join(path, e.Name())
		f, err := readFile(volume.file(name), left)
		if errors.Is(err, errNotRegular) {
			continue
		}
		if err != nil {
			return nil, err
		}
		f.Name = name
		left -= min(left, len(f.Data))
		out = append(out, f)
		if len(out) > MaxFiles {
			break // Decode says so
		}
	}
	return out, nil
}

// volume is a directory in which a kubelet shows a ConfigMap or a Secret: every
// name is a link through ..data, which is swapped to change all files in one
// step. That link is followed once for all files, so that they are of one set.
type volume struct{ data string }

func newVolume(dir string) volume {
	data, err := filepath.EvalSymlinks(filepath.Join(dir, "..data"))
	if err != nil {
		return volume{}
	}
	return volume{data}
}

// file returns where to read the file of that name.
func (v volume) file(name string) string {
	if v.data == "" {
		return name
	}
	link, err := os.Readlink(name)
	rest, ok := strings.CutPrefix(filepath.ToSlash(link), "..data/")
	if err != nil || !ok {
		return name
	}
	return filepath.Join(v.data, filepath.FromSlash(rest))
}

// isDocument reports whether a directory's file of that name is read.
func isDocument(name string) bool {
	if strings.HasPrefix(name, ".") {
		return false
	}
	return slices.Contains([]string{".yaml", ".yml", ".json"}, strings.ToLower(filepath.Ext(name)))
}

var errNotRegular = errors.New("not a regular file")

// readFile reads at most one byte more than most, by which Decode sees that it
// is too much. A pipe or a device is not opened: that could block.
func readFile(name string, most int) (File, error) {
	info, err := os.Stat(name)
	if err != nil {
		return File{}, err
	}
	if !info.Mode().IsRegular() {
		return File{}, &fs.PathError{Op: "read", Path: name, Err: errNotRegular}
	}
	file, err := os.Open(name)
	if err != nil {
		return File{}, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, int64(most)+1))
	return File{Name: name, Data: data}, err
}

// Load reads and decodes the document at path, a file or a directory. The
// Config is nil if there is none to be had.
func Load(path string) (*Config, []Problem) {
	files, err := ReadFiles(path)
	if err != nil {
		return nil, []Problem{Unreadable(path, err)}
	}
	return DecodeSet(path, files)
}

// DecodeSet decodes what ReadFiles has read at path.
func DecodeSet(path string, files []File) (*Config, []Problem) {
	if len(files) == 0 {
		return nil, []Problem{{
			Code: CodeNoDocument, Severity: Error, File: path, Object: ID{Kind: DocumentKind},
			Message: "there is no *.yaml, *.yml or *.json in the directory",
			Fix:     "write a document into it",
		}}
	}
	return Decode(files...)
}

// Unreadable is the problem of a path that cannot be read.
func Unreadable(path string, err error) Problem {
	why := err.Error()
	var perr *fs.PathError
	if errors.As(err, &perr) {
		path, why = perr.Path, fmt.Sprintf("%s: %v", perr.Op, perr.Err)
	}
	return Problem{
		Code: CodeUnreadable, Severity: Error, File: path, Object: ID{Kind: DocumentKind},
		Message: why, Fix: "see that the file is there and may be read",
	}
}
