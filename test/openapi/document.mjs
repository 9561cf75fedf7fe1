// What the description of the API promises, in a form to hold answers against.
import Ajv2020 from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';

const methods = ['get', 'put', 'post', 'delete', 'options', 'head', 'patch', 'trace'];

// Headers that belong to HTTP and not to an operation.
const plainHeaders = new Set([
  'cache-control', 'connection', 'content-length', 'content-type', 'date', 'keep-alive', 'transfer-encoding', 'x-content-type-options',
]);

// readDocument lists the operations of an OpenAPI document and compiles its
// schemas. Answers are held to closed ones: what the document does not name is
// not documented, though clients are told to expect more one day.
export function readDocument(document) {
  const asked = compiler(document, (schema) => schema);
  const answered = compiler(document, closed);
  const operations = [];
  for (const [path, item] of Object.entries(document.paths)) {
    for (const method of methods.filter((m) => item[m])) {
      operations.push(operation(document, path, method, item, asked, answered));
    }
  }
  const line = answered({ $ref: '#/components/schemas/AuditEntry' }); // of JSON lines, which no schema can describe
  return { document, operations, judge: (op, answer) => judge(op, answer, line) };
}

function operation(document, path, method, item, asked, answered) {
  const op = item[method];
  const resolve = (node) => (node?.$ref ? resolve(find(document, node.$ref)) : node);
  const parameters = [...(item.parameters ?? []), ...(op.parameters ?? [])].map(resolve);
  const body = resolve(op.requestBody);
  const schema = body?.content['application/json'].schema;
  const responses = new Map();
  for (const [status, value] of Object.entries(op.responses)) {
    const { headers = {}, content = {} } = resolve(value);
    responses.set(status, {
      headers: new Map(Object.entries(headers).map(([name, header]) => [name.toLowerCase(), resolve(header)])),
      content: new Map(Object.entries(content).map(([type, media]) => [type, answered(media.schema)])),
    });
  }
  return {
    id: op.operationId, path, method: method.toUpperCase(), parameters, responses, schema, resolve,
    example: body?.content['application/json'].example,
    acceptsBody: schema && asked(schema),
    acceptsParameter: new Map(parameters.map((p) => [p.name, asked(p.schema)])),
  };
}

function find(document, ref) {
  return ref.slice(2).split('/').reduce((node, step) => node[step.replaceAll('~1', '/').replaceAll('~0', '~')], document);
}

// compiler makes validators. Schemas refer to each other by their bare names.
function compiler(document, change) {
  const ajv = new Ajv2020({ strict: true, allowUnionTypes: true, allErrors: true });
  addFormats(ajv);
  const named = (schema) => change(JSON.parse(JSON.stringify(schema).replaceAll('#/components/schemas/', '')));
  for (const [name, schema] of Object.entries(document.components.schemas)) ajv.addSchema(named(schema), name);
  return (schema) => {
    const validate = ajv.compile(named(schema));
    return (value) => (validate(value) ? '' : ajv.errorsText(validate.errors, { dataVar: '' }));
  };
}

function closed(schema) {
  if (Array.isArray(schema)) return schema.map(closed);
  if (schema === null || typeof schema !== 'object') return schema;
  const out = Object.fromEntries(Object.entries(schema).map(([key, value]) => [key, closed(value)]));
  if (out.properties && out.additionalProperties === true) out.additionalProperties = false;
  return out;
}

// judge says what of an answer the document does not promise.
function judge(op, answer, line) {
  const wrong = [];
  const status = String(answer.status);
  const promised = op.responses.get(status);
  if (answer.status >= 500) wrong.push(`status ${status}`);
  if (!promised) return [...wrong, `status ${status} is not documented`];
  for (const name of Object.keys(answer.headers)) {
    if (!plainHeaders.has(name) && !promised.headers.has(name)) wrong.push(`header ${name} is not documented for ${status}`);
  }
  for (const [name, header] of promised.headers) {
    const value = answer.headers[name];
    if (value === undefined && header.required) wrong.push(`header ${name} is missing`);
    if (value !== undefined && header.schema.type === 'integer' && !(/^\d+$/.test(value) && Number(value) >= (header.schema.minimum ?? 0))) {
      wrong.push(`header ${name} is ${value}`);
    }
  }
  return [...wrong, ...judgeBody(promised, answer, line)];
}

function judgeBody(promised, answer, line) {
  if (promised.content.size === 0) {
    return answer.body.length || answer.headers['content-type'] ? [`a body or its type where ${answer.status} has none`] : [];
  }
  const type = answer.headers['content-type'];
  const validate = promised.content.get(type);
  if (!validate) return [`content type ${type} is not documented for ${answer.status}`];
  const text = answer.body.toString('utf8');
  if (Buffer.compare(Buffer.from(text, 'utf8'), answer.body)) return ['the body is not UTF-8'];
  try {
    if (type === 'application/jsonl') {
      const lines = text.split('\n');
      if (lines.pop() !== '') return ['the last line has no end'];
      return lines.map((l) => line(JSON.parse(l))).filter(Boolean);
    }
    const value = JSON.parse(text);
    const wrong = validate(value);
    if (wrong) return [`the body is not as documented: ${wrong}`];
    if (type !== 'application/problem+json') return [];
    if (value.status !== answer.status) return [`the problem's status is ${value.status}`];
    return value.request_id === answer.headers['x-request-id'] ? [] : ['the problem names another request than the header'];
  } catch (err) {
    return [`the body is not JSON: ${err.message}`];
  }
}
