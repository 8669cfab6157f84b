import { type OutgoingHttpHeaders, type ServerResponse, STATUS_CODES } from 'node:http';
import type { Duplex } from 'node:stream';
import { ERRORS, type ErrorCode, exitCodeOfError, OperationalError } from '../core/errors.ts';

/** What HTTP has a finer word for than our table of codes. */
type Refusal = { readonly status: number; readonly headers?: OutgoingHttpHeaders };

/** A request that HTTP itself finds wrong: its status, and the code that scripts see. */
export function refusal(status: number, detail: string, headers: OutgoingHttpHeaders = {}): OperationalError {
  const code: ErrorCode = status >= 500 ? 'internal' : 'invalid-request';
  return new OperationalError(code, detail, { cause: { status, headers } satisfies Refusal });
}

/** Answers with a problem document (RFC 9457), as long as nothing else was said yet; else it breaks off. */
export function sendProblem(response: ServerResponse, error: OperationalError): void {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  const { status, headers } = refusalOf(error);
  const body = documentOf(error, status);
  // What is left of the body stays unread, so nothing may follow on this connection.
  const connection = response.req.complete ? {} : { connection: 'close' };
  response.writeHead(status, { ...headers, ...connection, ...headersOf(body) });
  response.end(body);
}

/** The same for a connection on which no request could be made out. Ends it. */
export function sendRawProblem(socket: Duplex, error: OperationalError): void {
  const { status, headers } = refusalOf(error);
  const body = documentOf(error, status);
  const lines = Object.entries({ ...headers, ...headersOf(body), connection: 'close' }).map(
    ([name, value]) => `${name}: ${value}`,
  );
  socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${lines.join('\r\n')}\r\n\r\n${body}`);
}

function headersOf(body: string): OutgoingHttpHeaders {
  return { 'content-type': 'application/problem+json', 'content-length': Buffer.byteLength(body) };
}

function documentOf(error: OperationalError, status: number): string {
  const { code, message: detail } = error;
  const title = STATUS_CODES[status] ?? code;
  return `${JSON.stringify({ type: `urn:sidehook:problem:${code}`, title, status, detail, code, exitCode: exitCodeOfError(error) })}\n`;
}

function refusalOf(error: OperationalError): Refusal {
  const { cause } = error;
  const isRefusal =
    typeof cause === 'object' && cause !== null && 'status' in cause && typeof cause.status === 'number';
  return isRefusal ? (cause as Refusal) : { status: ERRORS[error.code].http };
}
