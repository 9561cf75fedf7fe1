package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"keygate/internal/admin"
)

const (
	// importBatch is how many keys one request carries; the API takes no more.
	importBatch = 1000
	// importBytes bounds the keys of one request: a body has at most 1 MiB, and
	// the form and what holds the list together take little of it.
	importBytes = 1<<20 - 4<<10
	// maxImportLine bounds one line of an import, in bytes.
	maxImportLine = 1 << 20
)

// importer imports lines in batches and knows what became of each line.
type importer struct {
	c      *admin.Client
	form   *admin.Form
	done   func(lines int)
	report []importedLine
	// batch are the keys that wait to be sent, waiting which of the report they
	// are, size the bytes that they take.
	batch   []admin.ImportedKey
	waiting []int
	size    int
}

// importLines imports in batches and returns what became of each line.
func importLines(ctx context.Context, c *admin.Client, form *admin.Form, in io.Reader, done func(lines int)) ([]importedLine, error) {
	im := &importer{c: c, form: form, done: done, report: []importedLine{}}
	scanner := bufio.NewScanner(in)
	scanner.Buffer(nil, maxImportLine)
	line := 0
	for scanner.Scan() {
		text := scanner.Bytes()
		if line++; line == 1 {
			text = bytes.TrimPrefix(text, []byte("\ufeff")) // some editors start a file with it
		}
		if text = bytes.TrimSpace(text); len(text) == 0 {
			continue
		}
		if err := im.add(ctx, line, text); err != nil {
			return im.report, err
		}
	}
	err := scanner.Err()
	if errors.Is(err, bufio.ErrTooLong) {
		err = fmt.Errorf("line %d is longer than %d bytes", line+1, maxImportLine)
	}
	return im.report, errors.Join(im.flush(ctx), err)
}

// add puts a line into the batch, and sends the batch that has no room for it.
func (im *importer) add(ctx context.Context, line int, text []byte) error {
	k, err := readImport(text)
	l := importedLine{Line: line, Name: k.Name}
	var encoded []byte
	if err == nil {
		encoded, err = json.Marshal(k)
	}
	if size := len(encoded) + 1; err == nil && size > importBytes {
		err = errors.New("is larger than a request may be")
	} else if err == nil {
		if len(im.batch) == importBatch || im.size+size > importBytes {
			if err := im.flush(ctx); err != nil {
				return err
			}
		}
		im.batch, im.waiting, im.size = append(im.batch, k), append(im.waiting, len(im.report)), im.size+size
	}
	if err != nil {
		l.Detail = err.Error()
	}
	im.report = append(im.report, l)
	return nil
}

// flush sends what waits. Keys for whose form the API refuses the whole request
// are reported and left out, and the rest is sent again.
func (im *importer) flush(ctx context.Context) error {
	for len(im.batch) > 0 {
		answer, err := im.c.ImportKeys(ctx, admin.Import{Form: im.form, Keys: im.batch})
		if err != nil && im.drop(err) {
			continue
		}
		if err == nil && len(answer.Items) != len(im.batch) {
			err = fmt.Errorf("the answer is about %d keys and %d were sent", len(answer.Items), len(im.batch))
		}
		if err != nil {
			im.report = im.report[:im.waiting[0]]
			return err
		}
		for i, item := range answer.Items {
			l := &im.report[im.waiting[i]]
			l.ID, l.Detail = item.ID, importDetail(item)
		}
		break
	}
	im.batch, im.waiting, im.size = nil, nil, 0
	if len(im.report) > 0 {
		im.done(im.report[len(im.report)-1].Line)
	}
	return nil
}

var ofKey = regexp.MustCompile(`^keys\[(\d+)\]\.?`)

// drop takes the keys out of the batch that a refusal of the whole names, if it
// names nothing else.
func (im *importer) drop(err error) bool {
	refused, ok := errors.AsType[*admin.APIError](err)
	if !ok || refused.Status != http.StatusUnprocessableEntity || len(refused.Problem.Errors) == 0 {
		return false
	}
	wrong := make(map[int][]string)
	for _, e := range refused.Problem.Errors {
		found := ofKey.FindStringSubmatch(e.Field)
		if found == nil {
			return false
		}
		i, err := strconv.Atoi(found[1])
		if err != nil || i >= len(im.batch) {
			return false
		}
		text := e.Detail
		if field := e.Field[len(found[0]):]; field != "" {
			text = field + ": " + text
		}
		wrong[i] = append(wrong[i], text)
	}
	var batch []admin.ImportedKey
	var waiting []int
	for i, k := range im.batch {
		if texts, ok := wrong[i]; ok {
			im.report[im.waiting[i]].Detail = strings.Join(texts, "; ")
			continue
		}
		batch, waiting = append(batch, k), append(waiting, im.waiting[i])
	}
	im.batch, im.waiting = batch, waiting
	return true
}

func readImport(text []byte) (admin.ImportedKey, error) {
	var k admin.ImportedKey
	if !utf8.Valid(text) {
		return k, errors.New("is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&k); err != nil {
		return admin.ImportedKey{}, errors.New("is not a key in JSON: " + strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) { // not More, which takes a bracket for the end
		return admin.ImportedKey{}, errors.New("has more than one JSON object")
	}
	return k, nil
}
