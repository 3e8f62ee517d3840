"""The domain of ClickPost: values and decisions; `store/` alone speaks SQL."""
