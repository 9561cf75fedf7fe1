package server

import (
	"io"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Access log lines are written in blocks: a system call for each request would
// cost more than the rest of the decision. A crash loses at most this much.
const (
	accessBuffer = 256 << 10
	accessFlush  = time.Second
)

// loggers are the two logs, on the same stream: what happens to the process at
// once, what happens to requests in blocks.
type loggers struct {
	app    *zap.Logger
	access *zap.Logger
	buffer *zapcore.BufferedWriteSyncer
}

// newLoggers writes to w in the given format ("json" or "console").
func newLoggers(w io.Writer, level zapcore.Level, format string) *loggers {
	enc := zap.NewProductionEncoderConfig()
	enc.TimeKey, enc.EncodeTime = "time", zapcore.RFC3339NanoTimeEncoder
	enc.MessageKey = "message"
	encoder := zapcore.NewJSONEncoder(enc)
	if format == "console" {
		enc.EncodeLevel = zapcore.CapitalLevelEncoder
		enc.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
		encoder = zapcore.NewConsoleEncoder(enc)
	}
	// Not even a file is synced: pipes and terminals answer that with an error,
	// and a log that outlives a power failure is its collector's matter.
	out := zapcore.Lock(zapcore.AddSync(struct{ io.Writer }{w}))
	buffer := &zapcore.BufferedWriteSyncer{WS: out, Size: accessBuffer, FlushInterval: accessFlush}
	return &loggers{
		app:    zap.New(zapcore.NewCore(encoder, out, level)),
		access: zap.New(zapcore.NewCore(encoder, buffer, level)),
		buffer: buffer,
	}
}

// close writes what is still in the buffer.
func (l *loggers) close() error { return l.buffer.Stop() }
