/** Codes go over the wire and into scripts: never rename one. Each has its HTTP status and exit code here, once. */
export const ERRORS = {
  'invalid-request': { http: 422, exit: 64 },
  'not-trusted': { http: 409, exit: 65 },
  'engine-unavailable': { http: 503, exit: 69 },
  internal: { http: 500, exit: 70 },
  'workload-failed': { http: 502, exit: 74 },
  busy: { http: 409, exit: 75 },
  refused: { http: 403, exit: 77 },
  configuration: { http: 422, exit: 78 },
  'not-executable': { http: 502, exit: 126 },
  'interpreter-not-found': { http: 502, exit: 127 },
} as const;

/** Names one row of ERRORS. */
export type ErrorCode = keyof typeof ERRORS;

/**
 * Something went wrong that a caller can act upon. Anything else that is thrown is a bug and ends the process.
 * Messages say what we tried, on what, and why it failed: `start container db: no such container`.
 */
export class OperationalError extends Error {
  override readonly name = 'OperationalError';
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** The exit code that an error is answered with. */
export function exitCodeOfError(error: OperationalError): number {
  return ERRORS[error.code].exit;
}

/** Says that a union has a variant which nobody thought of: it does not compile unless every one is handled. */
export function unreachable(value: never): never {
  throw new Error(`unreachable: ${JSON.stringify(value)}`);
}
