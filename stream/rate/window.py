"""How many unanswered packets a detector allows a live camera: fewer under load, so that those it has are new."""

from __future__ import annotations

LONG_WAIT_S = 0.2  # a frame that waits longer than this for the network could have been a newer one
SHORT_WAIT_S = 0.05
SHRINK_PAUSE_S = 0.5  # a smaller window shows its effect before the next step
CALM_S = 2.0  # before the window opens again by a step
MAX_CALM_S = 30.0  # where opening it was wrong before


class WindowControl:
    """Halves the window while frames wait or are superseded, and doubles it again once they do not.

    Each time that opening it proves wrong the calm before the next try is twice as long. `now_s` is of any steady
    clock.
    """

    def __init__(self, offered: int, now_s: float) -> None:
        self.window = self._offered = offered
        self._calm_s = CALM_S
        self._changed_s = now_s
        self._opened = False  # the last step
        self._busy_s = now_s  # when frames waited last

    def observe(self, wait_s: float, now_s: float, *, late: bool = False) -> int | None:
        """The new window, where it changes, after a frame that waited so long, or that came too `late` to be used."""
        if late or wait_s > LONG_WAIT_S:
            self._busy_s = now_s
            return self._shrink(now_s)
        if wait_s > SHORT_WAIT_S:
            self._busy_s = now_s
        return self._open(now_s)

    def _shrink(self, now_s: float) -> int | None:
        if self.window == 1 or (not self._opened and now_s - self._changed_s < SHRINK_PAUSE_S):
            return None
        if self._opened:
            self._calm_s = min(2 * self._calm_s, MAX_CALM_S)
        return self._change(max(1, self.window // 2), now_s, opened=False)

    def _open(self, now_s: float) -> int | None:
        if self.window == self._offered:
            if now_s - self._changed_s > MAX_CALM_S:
                self._calm_s = CALM_S
            return None
        if now_s - max(self._busy_s, self._changed_s) < self._calm_s:
            return None
        return self._change(min(self._offered, 2 * self.window), now_s, opened=True)

    def _change(self, window: int, now_s: float, *, opened: bool) -> int:
        self.window, self._changed_s, self._opened = window, now_s, opened
        return window
